//! The providers: codecs for the wires that vendors speak, and a companion that needs none.

pub(crate) mod demo;
pub(crate) mod openai;
pub(crate) mod sse;
