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

/// A way to a new password.
pub fn password_reset(to: &str, link: &str) -> Mail {
    Letter {
        to,
        subject: "Your request",
        opening: "Somebody, probably you, asked for a new password. Choose one here:",
        code: None,
        link: Some(link),
        closing: "The link is valid for 30 minutes and works once. If you did not ask for it, you need not do anything; \
                  your password stays as it is.",
    }
    .lay_out()
}

/// A new password was set.
pub fn password_changed(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "Your password was changed. All other devices have to sign in again.",
        code: None,
        link: None,
        closing: "If it was not you, ask for a new password at once, with “Forgot password” on the sign-in page.",
    }
    .lay_out()
}

/// The code that proves a new address.
pub fn email_code(to: &str, code: &str) -> Mail {
    Letter {
        to,
        subject: "Your code",
        opening: "Here is the code to use this address for your account:",
        code: Some(code),
        link: None,
        closing: "It is valid for ten minutes. If you did not ask for it, somebody mistyped an address; \
                  you need not do anything.",
    }
    .lay_out()
}

/// To an address that somebody wanted for their account and that belongs to another one.
pub fn address_taken(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your request",
        opening: "Somebody, probably you, asked to use this address for an account. It has an account already, so \
                  nothing was changed.",
        code: None,
        link: None,
        closing: "Sign in to that account instead. If it was not you, you need not do anything.",
    }
    .lay_out()
}

/// To an address that somebody wanted for their account and that another one has given up lately.
pub fn address_held(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your request",
        opening: "Somebody, probably you, asked to use this address for an account. Another account gave it up lately \
                  and can take it back, so nothing was changed.",
        code: None,
        link: None,
        closing: "That ends by itself after at most four days. If it was not you, you need not do anything.",
    }
    .lay_out()
}

/// To the address that was left by going back to the one before it.
pub fn email_returned(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "Your account uses again the e-mail address that it had before this one.",
        code: None,
        link: None,
        closing: "If it was you, you need not do anything. If not, write to us.",
    }
    .lay_out()
}

/// To the old address after a change, with the way back. It does not name the new one: somebody else may read along.
pub fn email_changed(to: &str, link: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "Your account uses another e-mail address now. If it was not you, take it back here:",
        code: None,
        link: Some(link),
        closing: "The link is valid for 72 hours. If it was you, you need not do anything.",
    }
    .lay_out()
}

/// To both addresses after a change was undone.
pub fn email_change_undone(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "A change of the e-mail address of your account was undone from the address before it. All devices were \
                  signed out.",
        code: None,
        link: None,
        closing: "So that nobody else gets in, the password works no longer: choose a new one with “Forgot password” on the \
                  sign-in page.",
    }
    .lay_out()
}

/// To somebody whose session was ended because a refresh token of it was used by two.
pub fn refresh_token_reused(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "One of your sessions was ended, because two devices used it that should not be able to. Somebody may have \
                  copied its key from a device of yours.",
        code: None,
        link: None,
        closing: "Sign in again. If you do not know how this can have happened, change your password, end your other \
                  sessions, and have a look at your devices.",
    }
    .lay_out()
}

/// To somebody whose oldest session was ended by a new one.
pub fn session_evicted(to: &str) -> Mail {
    Letter {
        to,
        subject: "Your account",
        opening: "You are signed in on many devices. Because of a new sign-in the oldest of your sessions was ended.",
        code: None,
        link: None,
        closing: "If that sign-in was you, you need not do anything. If not, change your password and end the sessions \
                  that you do not know.",
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
