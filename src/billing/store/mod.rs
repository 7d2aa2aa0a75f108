//! The queries of billing. A transaction takes rows in the order queue, customer, subscription, hold, checkout.

pub(crate) mod checkout;
pub(crate) mod queue;
pub(crate) mod quota;
pub(crate) mod rows;
