//! The providers: codecs for the wires that vendors speak, and a companion that needs none.

pub mod demo;
pub mod openai;
pub mod sse;
