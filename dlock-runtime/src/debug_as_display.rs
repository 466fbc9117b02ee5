//! Errors that people see by `Debug`.

/// Shows an error of the start-up the same way by `Debug` as by `Display`: that is what
/// `fn main() -> Result<(), Box<dyn Error>>` prints.
macro_rules! debug_as_display {
    ($error:ty) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use debug_as_display;
