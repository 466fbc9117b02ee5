//! The attribute on the memory backend.

mod attribute;
mod hygiene;
mod kinds;
mod shapes;
