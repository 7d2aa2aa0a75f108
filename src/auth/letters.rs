//! What identity writes to people. Neutral subjects: they show on locked screens, and somebody may look on.

use crate::platform::mail::{Letter, Mail};

/// The code of a sign-up.
pub fn signup_code(to: &str, code: &str) -> Mail {
    Letter {
        to,
        subject: "Your code",
        opening: "Here is the code to finish your sign-up:",
        code: Some(code),
        link: None,
        closing: "It is valid for ten minutes. If you did not ask for it, somebody mistyped an address; \
                  you need not do anything.",
    }
    .lay_out()
}

/// To somebody who signs up again.
pub fn already_registered(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your sign-up",
        opening: "Somebody, probably you, asked to sign up with this address. It has an account already, so nothing \
                  was changed.",
        code: None,
        link: None,
        closing: "Sign in with your password instead. If it was not you, you need not do anything.",
    }
    .lay_out()
}

/// To an address that was refused lately. It names no reason: somebody else may have used the address, or reads along.
pub fn signup_refused(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your sign-up",
        opening: "Somebody, probably you, asked to sign up with this address. At the moment we cannot open an account \
                  for it.",
        code: None,
        link: None,
        closing: "That ends by itself after at most 30 days. If it was not you, you need not do anything; if you think \
                  that it is a mistake, write to us.",
    }
    .lay_out()
}

/// To the owner of an account that was locked.
pub fn account_locked(to: &str, link: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "Somebody tried many wrong passwords for your account. So that nobody finds out the right one, no password \
                  is accepted for now, not even yours. Unlock it here when you want to sign in:",
        code: None,
        link: Some(link),
        closing: "The link is valid for one day and works once; after that, trying to sign in sends another one. Your \
                  password is as it was. Devices that are signed in stay so.",
    }
    .lay_out()
}
