//! Tools that know no slice, against what they talk to.

mod smtp;
