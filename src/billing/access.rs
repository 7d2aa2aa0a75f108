//! The judge of access: a pure function of what is stored and what the operator decided.

use super::{BillingSettings, Reason};

/// What a user may use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Why.
    pub reason: Reason,
    /// Messages a day; 0 means that nothing is included.
    pub messages_per_day: i64,
    /// Who can be talked to.
    pub companions: Companions,
}

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
}

/// Decides access. Everybody is on the free tier.
pub fn decide(settings: &BillingSettings) -> Access {
    let messages_per_day = settings.free_messages_per_day.max(0);
    Access {
        reason: if messages_per_day > 0 { Reason::Free } else { Reason::None },
        messages_per_day,
        companions: settings.free_companions.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(messages: i64, companions: Companions) -> BillingSettings {
        BillingSettings {
            free_messages_per_day: messages,
            free_companions: companions,
            upgrade_url: String::new(),
        }
    }

    #[test]
    fn the_free_tier_may_be_closed() {
        assert_eq!(decide(&settings(20, Companions::All)).reason, Reason::Free);
        let closed = decide(&settings(0, Companions::All));
        assert_eq!((closed.reason, closed.messages_per_day), (Reason::None, 0));
    }

    #[test]
    fn companions_are_named_or_all() {
        assert!(Companions::All.include("roz"));
        let some = Companions::Only(vec!["roz".into()]);
        assert!(some.include("roz") && !some.include("octavia") && !some.include(""));
    }
}
