//! What billing writes to people. As neutral as identity's letters: subject and text name no product and no sum.

use jiff::Timestamp;

use super::apply::Occasion;
use crate::platform::mail::{Letter, Mail};

/// A letter about a subscription.
pub fn about(occasion: Occasion, to: &str) -> Mail {
    let cancelled;
    let (opening, closing) = match occasion {
        Occasion::Started => (
            "Your subscription has started. Thank you.",
            "It renews by itself. In your account you see what it includes and end it whenever you like.",
        ),
        Occasion::Renewed => (
            "Your subscription has been renewed. Thank you.",
            "In your account you see what it includes and end it whenever you like.",
        ),
        Occasion::Failed => (
            "A payment for your subscription did not go through. It will be tried again.",
            "Please look at your payment details in your account, so that nothing ends in between.",
        ),
        Occasion::Cancelled { at } => {
            cancelled = format!("Your subscription will not renew. You have it until {}.", day(at));
            (cancelled.as_str(), "You need not do anything. Nothing more will be charged.")
        }
        Occasion::Ended => (
            "Your subscription has ended.",
            "Nothing more will be charged. In your account you can begin a new one whenever you like.",
        ),
    };
    Letter { to, subject: "Your account", opening, code: None, link: None, closing }.lay_out()
}

/// A day in UTC, in words that no country reads otherwise.
fn day(time: Timestamp) -> String {
    time.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_names_the_day() {
        let at = "2026-12-05T08:30:00Z".parse().unwrap();
        let mail = about(Occasion::Cancelled { at }, "ann@example.com");
        assert!(mail.text.contains("until 5 December 2026, 08:30 UTC."), "{}", mail.text);
    }

    #[test]
    fn nothing_shows_on_a_locked_screen() {
        for occasion in [Occasion::Started, Occasion::Renewed, Occasion::Failed, Occasion::Ended] {
            assert_eq!(about(occasion, "ann@example.com").subject, "Your account");
        }
    }
}
