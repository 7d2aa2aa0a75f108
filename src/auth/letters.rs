//! What identity writes to people. Neutral subjects: they show on locked screens, and somebody may look on.

use crate::platform::mail::{Letter, Mail};

/// The code of a sign-up.
pub fn signup_code(to: &str, code: &str) -> Mail {
    Letter {
        to,
        subject: "Your code",
        opening: "Here is the code to finish your sign-up:",
        code: Some(code),
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
        closing: "That ends by itself after at most 30 days. If it was not you, you need not do anything; if you think \
                  that it is a mistake, write to us.",
    }
    .lay_out()
}

/// To somebody whose session was ended because a refresh token of it was used by two.
pub fn refresh_token_reused(to: &str) -> Mail {
    Letter {
        to,
        subject: "About your account",
        opening: "One of your sessions was ended, because two devices used it that should not be able to. Somebody may have \
                  copied its key from a device of yours.",
        code: None,
        closing: "Sign in again. If you do not know how this can have happened, change your password, end your other \
                  sessions, and have a look at your devices.",
    }
    .lay_out()
}

/// To somebody whose oldest session was ended by a new one.
pub fn session_evicted(to: &str) -> Mail {
    Letter {
        to,
        subject: "About your account",
        opening: "You are signed in on many devices. Because of a new sign-in the oldest of your sessions was ended.",
        code: None,
        closing: "If that sign-in was you, you need not do anything. If not, change your password and end the sessions \
                  that you do not know.",
    }
    .lay_out()
}
