//! The providers: codecs for the wires that vendors speak, and a companion that needs none.
//!
//! A codec knows its wire format and nothing else ([`reading::Wire`]). What any of them needs to talk to a vendor is
//! shared: [`exchange`] makes the call, [`reading`] turns bytes into parts of a reply by way of [`sse`], and [`complaint`]
//! reads what vendors say of their failures. [`alternating`] puts a conversation into the order that all of them take.

mod alternating;
pub(crate) mod anthropic;
mod complaint;
#[cfg(test)]
mod conformance;
pub(crate) mod demo;
mod exchange;
pub(crate) mod openai;
mod reading;
mod sse;

#[cfg(fuzzing)]
pub use self::{
    anthropic::Messages,
    openai::ChatCompletions,
    reading::{Wire, decode},
};
