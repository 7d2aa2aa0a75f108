//! What a payment provider has to be able to do, in our words.
//!
//! Gateways translate between these words and a vendor's. They must not know users beyond an id, the database, or what a
//! plan includes.

use std::net::IpAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::{Method, header::HeaderMap};
use secrecy::SecretString;
use uuid::Uuid;

use super::row::{Bill, HoldKind, Mode};

/// What a gateway can do beyond checkouts and notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its subscriptions can be asked for: notices only say that something changed.
    pub queryable: bool,
    /// It has pages on which a customer manages a subscription, made for one visit.
    pub portal: bool,
    /// It can be told to end a subscription with the period that is paid.
    pub cancel: bool,
}

/// A payment provider.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Whether real money moves.
    fn mode(&self) -> Mode;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the customer that a user will be at the provider, before the first checkout. The provider is told the user's id
    /// and nothing else. Made twice with one `nonce`, it is the same customer.
    async fn create_customer(&self, user: Uuid, nonce: Uuid) -> Result<String, GatewayError>;

    /// Begins a checkout. Begun twice with one nonce, it is the same one.
    async fn start_checkout(&self, order: &Order) -> Result<Checkout, GatewayError>;

    /// Ends a checkout that somebody may still have open, so that it cannot be paid any more; one that has ended, too. `false`:
    /// it was paid, or the provider cannot do this.
    async fn expire_checkout(&self, reference: &str) -> Result<bool, GatewayError>;

    /// A page on which this customer manages subscriptions: a link that opens it for whoever has it.
    async fn portal(&self, customer: &str, return_url: &str) -> Result<SecretString, GatewayError>;

    /// The page where customers manage subscriptions by themselves, the same for everybody, if there is one.
    fn manage_url(&self) -> Option<String>;

    /// Judges a notice. Nothing is read from the database, and nothing is changed.
    fn receive(&self, notice: &Notice<'_>, now: Timestamp) -> Result<Received, Rejection>;

    /// Asks for the current state of what a notice named. Only where [`Capabilities::queryable`].
    async fn fetch(&self, subject: &Subject) -> Result<Snapshot, GatewayError>;

    /// Notices since `since` that the provider could not deliver, oldest first. Only where [`Capabilities::queryable`].
    async fn undelivered(&self, since: Timestamp) -> Result<Undelivered, GatewayError>;

    /// Tells the provider not to renew a subscription. What it answers at once, if it is not queryable, is a fact.
    async fn cancel(&self, subscription: &str, now: Timestamp) -> Result<Option<Fact>, GatewayError>;
}

/// What is bought.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who buys.
    pub user: Uuid,
    /// Who that is at the provider.
    pub customer: String,
    /// The provider's reference of the price.
    pub price: String,
    /// Where the buyer comes back to.
    pub success_url: String,
    /// Where the buyer comes back to who did not buy.
    pub cancel_url: String,
    /// Makes the request repeatable.
    pub nonce: Uuid,
}

/// A checkout that a buyer can be sent to.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The page: whoever has the link can use it.
    pub url: SecretString,
    /// The provider's reference, where it has one.
    pub reference: Option<String>,
    /// When the page ends.
    pub expires_at: Timestamp,
}

/// A request that claims to be the provider's.
pub struct Notice<'a> {
    /// How it came.
    pub method: &'a Method,
    /// What ended the path, behind the provider's name.
    pub path_secret: Option<&'a str>,
    /// The query string, raw.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Where it came from.
    pub peer: Option<IpAddr>,
    /// The body, raw.
    pub body: &'a [u8],
}

/// What a genuine notice says, and what the provider expects as an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub signal: Signal,
    /// What is answered when it has been taken: a text, with status 200.
    pub reply: String,
}

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// That something changed: ask.
    Touched(Touched),
    /// What changed: there is nobody to ask.
    Fact(Fact),
    /// Something that is no concern of ours, or of the other mode. It is recorded and answered.
    Ignored(Touched),
}

/// Something changed at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// What identifies this notice among all of the provider's.
    pub key: String,
    /// The provider's name for the kind of notice, at most 64 characters.
    pub kind: String,
    /// What changed; `None` where nothing of ours did.
    pub subject: Option<Subject>,
    /// When it happened, by the provider's clock.
    pub at: Timestamp,
}

/// Notices that a provider could not deliver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// What they are about, oldest first.
    pub touched: Vec<Touched>,
    /// Whether there are more of them, older ones, than were read.
    pub is_cut: bool,
}

/// What can be asked for. Each has a queue of its own, and its answers replace one another in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A customer with all subscriptions.
    Customer(String),
    /// A dispute.
    Dispute(String),
    /// A charge, and what was given back of it.
    Charge(String),
}

/// The provider's answer, as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is: the customer that a charge or a dispute belongs to, too. `None` if that is nobody.
    pub customer: Option<Customer>,
    /// What there is.
    pub state: SnapshotState,
}

/// A customer as the provider knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The provider's reference.
    pub reference: String,
    /// Our user, as the customer's metadata has it.
    pub user: Option<Uuid>,
}

/// What the provider has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Every subscription of the customer, ended ones too.
    Subscriptions(Vec<Bill>),
    /// What a charge or dispute means for access.
    Hold(HoldState),
    /// There is no such thing any more.
    Gone,
}

/// What a charge or dispute means for access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
    /// Which kind of hold it is, or would be.
    pub kind: HoldKind,
    /// The subscription that was paid with it, where that is known.
    pub subscription: Option<String>,
    /// Since when; `None`: it holds nothing up, or not any more.
    pub held_since: Option<Timestamp>,
}

/// Something that happened, told by a provider who cannot be asked. Facts about one subscription can come in any order, and
/// more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What identifies this notice among all of the provider's.
    pub key: String,
    /// The provider's name for the kind of notice.
    pub kind: String,
    /// Whose it is, where the notice says so.
    pub customer: Option<String>,
    /// The subscription.
    pub subscription: String,
    /// What happened.
    pub event: FactEvent,
    /// When, by the provider's clock.
    pub at: Timestamp,
}

/// What happened to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactEvent {
    /// It was paid.
    Paid {
        /// The price's reference.
        price: Option<String>,
        /// Until when.
        through: Timestamp,
    },
    /// It will not renew.
    Cancelled,
    /// It will renew after all.
    Uncancelled,
    /// It ended.
    Expired,
    /// Money was given back, or taken back.
    Held {
        /// By whom.
        kind: HoldKind,
        /// The payment.
        transaction: String,
    },
}

/// Why a notice is not taken. The caller is told no more than the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not the provider's, or cannot be read.
    #[error("the notice is not genuine: {0}")]
    NotGenuine(&'static str),
    /// Its sender is nobody who may send.
    #[error("the sender is not on the list of peers")]
    ForeignPeer,
    /// Nothing is served under this path or method.
    #[error("nothing is served here")]
    NotHere,
}

/// What went wrong at a provider. The texts are for the operator's log; they carry no key, no link and nobody's name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GatewayError {
    /// It cannot do this.
    #[error("the provider has no such thing")]
    Unsupported,
    /// It was not reached, failed, or was too slow. It may have done it.
    #[error("the provider did not answer: {0}")]
    Unavailable(String),
    /// It did not accept our key, or what we were given cannot be asked with. Only an operator can mend it.
    #[error("the provider cannot be asked as it is configured: {0}")]
    Misconfigured(String),
    /// It understood and refused.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// It answered something that cannot be understood.
    #[error("the provider answered something else: {0}")]
    Protocol(String),
}
