//! Companions: personas that the operator configures.

use serde::Serialize;
use utoipa::ToSchema;

/// A companion. Its prompt never leaves the server.
#[derive(Clone, Debug)]
pub struct Companion {
    /// What the public may know.
    pub card: CompanionCard,
    /// The instructions to the model.
    pub prompt: String,
    /// Whether conversations follow when the settings change, or keep the persona that they were begun with.
    pub follow: bool,
}

/// What the public may know of a companion.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Companion)]
pub struct CompanionCard {
    /// Its id.
    #[schema(example = "octavia")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// One line about it.
    pub tagline: String,
    /// What it says before the first message.
    pub greeting: String,
    /// A picture.
    pub avatar_url: Option<String>,
    /// Whether conversations can be had with it now.
    pub available: bool,
    /// The plan that it needs; `null` for any.
    pub requires_plan: Option<String>,
}

/// All companions, in the order in which they are shown.
#[derive(Clone, Debug)]
pub struct Companions(Vec<Companion>);

impl Companions {
    /// Companions in their order.
    pub fn new(companions: Vec<Companion>) -> Companions {
        Companions(companions)
    }

    /// The companion with this id, available or not.
    pub fn get(&self, id: &str) -> Option<&Companion> {
        self.0.iter().find(|companion| companion.card.id == id)
    }

    /// The companion that a conversation gets when none is named: the first that is available.
    pub fn default(&self) -> Option<&Companion> {
        self.0.iter().find(|companion| companion.card.available)
    }

    /// All of them.
    pub fn all(&self) -> &[Companion] {
        &self.0
    }

    /// What the public may know.
    pub fn cards(&self) -> Vec<CompanionCard> {
        self.0.iter().map(|companion| companion.card.clone()).collect()
    }
}
