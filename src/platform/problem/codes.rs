//! The list of error codes: stable names that a frontend may branch on, each with its remedy.

use axum::http::StatusCode;

macro_rules! codes {
    ($($(#[$meta:meta])* $variant:ident = $code:literal, $status:ident, $title:literal, $remedy:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$meta])* $variant),* }

        impl Code {
            /// Every code, in the order of the documents.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The name, as it stands in `code` and at the end of `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }

            /// The HTTP status that it comes with.
            pub const fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status),* }
            }

            /// One sentence about what happened.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }

            /// What the caller can do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Code::$variant => $remedy),* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not well-formed JSON",
        "Send one JSON value in UTF-8: no duplicate keys, nothing after it, nested at most 32 deep.";
    /// A cursor that we did not make for this caller.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not valid",
        "Use `next_cursor` of the same list as it was given, or leave the cursor out to begin again.";
    /// Something else about the request.
    BadRequest = "bad_request", BAD_REQUEST, "The request cannot be understood",
        "Compare the request with the OpenAPI document; `detail` says what was wrong.";
    /// A code that is wrong or spent.
    InvalidCode = "invalid_code", BAD_REQUEST, "The code is wrong or no longer valid",
        "Ask the person to check the newest mail, or send a new code.";
    /// Consents to a version that is not the current one.
    PolicyOutdated = "policy_outdated", BAD_REQUEST, "A policy that was accepted is not the current one",
        "Read `GET /v1/policies` again and ask for consent to the current versions.";
    /// No live session.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Sign-in is needed",
        "Refresh the access token; if that fails, sign in again.";
    /// Wrong e-mail address or password.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "E-mail address or password is wrong",
        "Ask the person to try again or to reset the password.";
    /// A refresh token that is expired, ended or unknown.
    InvalidGrant = "invalid_grant", UNAUTHORIZED, "The session has ended", "Sign in again.";
    /// A refresh token that was exchanged long ago.
    RefreshTokenReused = "refresh_token_reused", UNAUTHORIZED, "A refresh token was used again, and the session was ended",
        "Sign in again. Somebody else may have had the token; store only the newest one.";
    /// The free tier or plan does not include this.
    SubscriptionRequired = "subscription_required", PAYMENT_REQUIRED, "This needs a subscription",
        "Show the plans; `upgrade_url` leads there.";
    /// The day's messages are used up.
    QuotaExhausted = "quota_exhausted", PAYMENT_REQUIRED, "Today's messages are used up",
        "Wait until `resets_at`, or show the plans; `upgrade_url` leads there.";
    /// A renewal failed, and the time for mending it is over.
    PaymentPastDue = "payment_past_due", PAYMENT_REQUIRED, "The last payment did not go through",
        "Send the person to the page of `POST /v1/subscription/portal`, where the payment can be mended.";
    /// Money was taken back, or an operator stopped access.
    PaymentOnHold = "payment_on_hold", PAYMENT_REQUIRED, "Access is on hold",
        "Tell the person to write to the operator. Nothing can be bought meanwhile.";
    /// Not allowed.
    Forbidden = "forbidden", FORBIDDEN, "This is not allowed", "There is nothing to retry.";
    /// The sign-in is too long ago.
    ReauthenticationRequired = "reauthentication_required", FORBIDDEN, "A fresh sign-in is needed",
        "Ask for the password, send it to `POST /v1/auth/reauthenticate`, and repeat the call with the token from its answer.";
    /// A page that may not use the cookie.
    CsrfRejected = "csrf_rejected", FORBIDDEN, "The refresh cookie may not be used from here",
        "Call from an allowed origin on the same site, with `content-type: application/json`.";
    /// A policy has to be accepted first.
    ConsentRequired = "consent_required", FORBIDDEN, "A policy has to be accepted first",
        "Show the documents of `GET /v1/policies` that are `required`, then send `POST /v1/me/consents`.";
    /// The user was suspended.
    AccountSuspended = "account_suspended", FORBIDDEN, "The account is suspended",
        "Tell the person to write to the operator. Some suspensions end by themselves.";
    /// Too young, or refused for that lately.
    AgeRestricted = "age_restricted", FORBIDDEN, "This service is for adults", "There is nothing to retry.";
    /// No such thing, or not the caller's.
    NotFound = "not_found", NOT_FOUND, "There is no such thing",
        "Check the path and the id. What belongs to somebody else looks the same.";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here",
        "Use one of the methods in the `Allow` header.";
    /// None of the accepted content types can be produced.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "No acceptable form of the answer",
        "Accept `text/event-stream` or `application/json`.";
    /// Body too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "Send at most 64 KiB, or 256 KiB to `POST /v1/chat`.";
    /// Wrong content type.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported",
        "Send `content-type: application/json`, uncompressed.";
    /// It collides with what is there.
    Conflict = "conflict", CONFLICT, "This collides with what is there", "Read the current state and decide anew.";
    /// A reply is being made in this conversation.
    GenerationInProgress = "generation_in_progress", CONFLICT, "A reply is being made",
        "Wait for the running reply, join it with `GET /v1/chat/{id}/stream`, or stop it.";
    /// The same message id with another text.
    IdempotencyMismatch = "idempotency_mismatch", CONFLICT, "This id was used for something else",
        "Give every new message an id of its own, and every request for another reply a key of its own.";
    /// The caller has a subscription that renews.
    AlreadySubscribed = "already_subscribed", CONFLICT, "There is a subscription already",
        "Send the person to `manage_url`, or to the page of `POST /v1/subscription/portal`.";
    /// Well-formed, but not valid.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY, "The request is not valid",
        "`errors` names each field by JSON pointer with a code and a sentence.";
    /// The companion cannot answer this.
    ContentRefused = "content_refused", UNPROCESSABLE_ENTITY, "The companion cannot answer this",
        "Ask for something else.";
    /// Too fast.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "Wait for `Retry-After` seconds, then try again.";
    /// A fault of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side",
        "Try again; if it stays, report the `request_id`.";
    /// The provider failed.
    ProviderFailed = "provider_failed", BAD_GATEWAY, "The companion could not answer",
        "Without a word, nothing was charged, as a rule: send the message again, under the same id. After words have arrived \
         that only gives the same again: ask for another reply, or send a new message.";
    /// The service cannot work at the moment.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is not available at the moment",
        "Wait for `Retry-After` seconds, then try again. A reply that was broken off after words have arrived stays as it \
         is: ask for another one, or send a new message.";
    /// Too much at once.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The service is busy",
        "Wait for `Retry-After` seconds, then try again.";
    /// The provider is busy.
    ProviderUnavailable = "provider_unavailable", SERVICE_UNAVAILABLE, "The companion is busy",
        "Without a word, nothing was charged, as a rule: wait for `Retry-After` seconds, then send the message again, under \
         the same id. After words have arrived that only gives the same again: ask for another reply, or send a new message.";
    /// The provider was too slow.
    ProviderTimeout = "provider_timeout", GATEWAY_TIMEOUT, "The companion took too long",
        "Without a word, nothing was charged, as a rule: send the message again, under the same id. After words have arrived \
         that only gives the same again: ask for another reply, or send a new message.";
}

impl Code {
    /// The code with this name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}
