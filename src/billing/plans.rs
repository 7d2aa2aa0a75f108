//! Plans: what can be bought, and what it includes. They come from the settings alone.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// A set of companions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Companions {
    /// Everybody.
    All,
    /// These, by id.
    Only(Vec<String>),
}

impl Companions {
    /// Whether a companion is among them.
    pub fn include(&self, companion: &str) -> bool {
        match self {
            Companions::All => true,
            Companions::Only(ids) => ids.iter().any(|id| id == companion),
        }
    }

    /// How many there are, for comparing plans.
    fn count(&self) -> usize {
        match self {
            Companions::All => usize::MAX,
            Companions::Only(ids) => ids.len(),
        }
    }
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name in the settings.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Messages a day.
    pub messages_per_day: i64,
    /// Who can be talked to.
    pub companions: Companions,
    /// Replies that may be made at once; `None`: as many as for everybody.
    pub generations: Option<i64>,
    /// The reference of its price at each provider.
    pub prices: BTreeMap<String, String>,
}

impl Plan {
    /// Which of two plans is the higher one: more messages, then more companions, then more at once.
    pub(super) fn rank(&self) -> (i64, usize, Option<i64>) {
        (self.messages_per_day, self.companions.count(), self.generations)
    }
}

/// A plan as anybody may see it. What it costs is shown at the provider's checkout.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct PlanCard {
    /// Its id, for `POST /v1/subscription/checkout`.
    #[schema(example = "plus")]
    pub id: String,
    /// Its name.
    #[schema(example = "Plus")]
    pub name: String,
    /// Messages a day.
    pub messages_per_day: i64,
    /// The ids of the companions that it includes; `null`: all.
    pub companions: Option<Vec<String>>,
    /// Replies that may be made at once; `null`: as many as without a plan.
    pub generations: Option<i64>,
    /// Whether it can be bought. One that cannot is only granted, or was sold before.
    pub available: bool,
}

impl Plan {
    /// What anybody may see of it, where `checkout` sells.
    pub(super) fn card(&self, checkout: Option<&str>) -> PlanCard {
        PlanCard {
            id: self.id.clone(),
            name: self.name.clone(),
            messages_per_day: self.messages_per_day,
            companions: match &self.companions {
                Companions::All => None,
                Companions::Only(ids) => Some(ids.clone()),
            },
            generations: self.generations,
            available: checkout.is_some_and(|provider| self.prices.contains_key(provider)),
        }
    }
}
