//! How far a model's own count of tokens is from our estimate, learnt from what providers say. Pure but for the lock.
//!
//! Estimates err by language and by model: English has four bytes in a token where we assume three, Thai fewer than two.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many tokens a model counts where we estimate one, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u64);

impl Ratio {
    const ONE: u64 = 1_000_000;
    /// No language has tokens of six bytes; some servers count only what they had not in their cache.
    const LEAST: u64 = 500_000;
    /// Beyond it somebody counts something else.
    const MOST: u64 = 4_000_000;

    /// What an observation weighs: one part in so many. Who needs more tokens than expected is believed sooner, because a
    /// prompt that is too long costs another try; who needs fewer is believed slowly, because the next person may write
    /// otherwise. Neither moves it far at once: the ratio is everybody's, and somebody may write what has many tokens on purpose.
    const UP: u64 = 8;
    const DOWN: u64 = 16;

    /// With one prompt more, which we had estimated and the provider has counted. A count of nothing teaches nothing.
    pub fn learn(self, estimated: u64, counted: u64) -> Ratio {
        if counted == 0 {
            return self;
        }
        let Some(seen) = counted.saturating_mul(Ratio::ONE).checked_div(estimated) else { return self };
        let seen = seen.clamp(Ratio::LEAST, Ratio::MOST);
        let moved = if seen > self.0 {
            self.0.saturating_add(seen.saturating_sub(self.0).div_ceil(Ratio::UP))
        } else {
            self.0.saturating_sub(self.0.saturating_sub(seen).div_ceil(Ratio::DOWN))
        };
        Ratio(moved)
    }

    /// How many of our tokens fit where the model has room for `tokens` of its own.
    pub fn estimated(self, tokens: u64) -> u64 {
        let ours = u128::from(tokens).saturating_mul(u128::from(Ratio::ONE)).checked_div(u128::from(self.0));
        ours.and_then(|ours| u64::try_from(ours).ok()).unwrap_or(u64::MAX)
    }
}

impl Default for Ratio {
    /// The estimate is right, as far as we know.
    fn default() -> Self {
        Ratio(Ratio::ONE)
    }
}

/// The ratios of the models in the route. Each instance learns for itself, anew after a start.
#[derive(Default)]
pub struct Ratios(Mutex<BTreeMap<String, Ratio>>);

impl Ratios {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Ratio>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model's ratio.
    pub fn of(&self, model: &str) -> Ratio {
        self.all().get(model).copied().unwrap_or_default()
    }

    /// Learns from one prompt.
    pub fn learn(&self, model: &str, estimated: u64, counted: u64) {
        let mut all = self.all();
        let learnt = all.get(model).copied().unwrap_or_default().learn(estimated, counted);
        all.insert(model.to_owned(), learnt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn more_is_believed_sooner_than_less() {
        assert_eq!(Ratio::default().learn(100, 200), Ratio(1_125_000));
        assert_eq!(Ratio::default().learn(100, 68), Ratio(980_000));
        assert_eq!(Ratio(2_000_000).estimated(1_000), 500);
        assert_eq!(Ratio(500_000).estimated(1_000), 2_000);
    }

    #[test]
    fn a_count_of_nothing_teaches_nothing() {
        for (estimated, counted) in [(100, 0), (0, 100), (0, 0)] {
            assert_eq!(Ratio::default().learn(estimated, counted), Ratio::default());
        }
    }

    #[test]
    fn models_learn_apart() {
        let ratios = Ratios::default();
        ratios.learn("a", 100, 200);
        assert_eq!((ratios.of("a"), ratios.of("b")), (Ratio(1_125_000), Ratio::default()));
    }

    proptest! {
        #[test]
        fn whatever_is_counted_the_ratio_stays_in_bounds(
            seen in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40), tokens: u64,
        ) {
            let mut ratio = Ratio::default();
            for (estimated, counted) in seen {
                ratio = ratio.learn(estimated, counted);
                prop_assert!((Ratio::LEAST..=Ratio::MOST).contains(&ratio.0));
                // Between a quarter and twice as many, whatever was learnt.
                prop_assert!(ratio.estimated(tokens) >= tokens / 4);
                prop_assert!(ratio.estimated(tokens) <= tokens.saturating_mul(2));
            }
        }

        #[test]
        fn it_comes_to_what_is_always_counted(
            start in Ratio::LEAST..=Ratio::MOST, truth in Ratio::LEAST..=Ratio::MOST, estimated in 1_000u64..1_000_000,
        ) {
            let counted = truth * estimated / Ratio::ONE;
            let mut ratio = Ratio(start);
            let mut distance = ratio.0.abs_diff(truth);
            for _ in 0..300 {
                ratio = ratio.learn(estimated, counted);
                // Never further away than before, but for what is lost to whole tokens.
                let now = ratio.0.abs_diff(truth);
                prop_assert!(now <= distance.max(Ratio::ONE / 1_000));
                distance = now;
            }
            prop_assert!(distance <= Ratio::ONE / 1_000, "{distance}");
        }
    }
}
