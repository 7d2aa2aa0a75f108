//! Tools that know no slice of the product.

pub mod clock;
pub mod db;
pub mod random;
pub mod tasks;
