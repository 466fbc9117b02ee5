//! The attribute at work on the memory backend.

mod attribute;
mod hygiene;
mod kinds;
mod shapes;
