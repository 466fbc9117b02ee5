//! What the tests share: real servers, worker processes, and a backend with defects.

pub mod careless;
pub mod faulty;
pub mod late;
pub mod proxy;
pub mod servers;
pub mod trials;
pub mod workers;
