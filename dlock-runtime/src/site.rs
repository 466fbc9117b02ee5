//! Lock sites: the annotated functions of a binary, known without calling them.

use std::fmt;

use crate::options::LockOptions;

/// One annotated function: where it is, which keys it locks, and with what options.
///
/// The attribute registers a site for every function it is applied to, whether or not the function
/// is ever called. [`Registry::sites`](crate::Registry::sites) lists them, and
/// [`RegistryBuilder::install`](crate::RegistryBuilder::install) verifies them.
#[derive(Debug)]
pub struct Site {
    module_path: &'static str,
    file: &'static str,
    line: u32,
    function: &'static str,
    label: &'static str,
    keys: &'static [&'static str],
    in_transaction: bool,
    pub(crate) options: LockOptions,
}

inventory::collect!(&'static Site);

impl Site {
    /// Returns the function's module.
    #[must_use]
    pub const fn module_path(&self) -> &'static str {
        self.module_path
    }

    /// Returns the source file, as the compiler names it.
    #[must_use]
    pub const fn file(&self) -> &'static str {
        self.file
    }

    /// Returns the line of the attribute.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Returns the function's name.
    #[must_use]
    pub const fn function(&self) -> &'static str {
        self.function
    }

    /// Returns the key templates as written; an expression is shown in braces.
    #[must_use]
    pub const fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// Returns the backend's name; `None` means the registry's default.
    #[must_use]
    pub const fn backend_name(&self) -> Option<&'static str> {
        self.options.backend
    }

    /// Returns whether it is a row lock in the caller's transaction, which needs no backend.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The function with its module, as shown to operators.
    pub(crate) const fn label(&self) -> &'static str {
        self.label
    }

    /// The first template: the low-cardinality name of this lock in traces and metrics.
    pub(crate) fn template(&self) -> &'static str {
        self.keys.first().copied().unwrap_or("")
    }
}

/// Construction, for the attribute's expansion only.
#[doc(hidden)]
impl Site {
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "written by the expansion only")]
    pub const fn new(
        module_path: &'static str,
        file: &'static str,
        line: u32,
        function: &'static str,
        label: &'static str,
        keys: &'static [&'static str],
        in_transaction: bool,
        options: LockOptions,
    ) -> Self {
        Self { module_path, file, line, function, label, keys, in_transaction, options }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module_path, file, line, function, keys, .. } = self;
        write!(f, "{module_path}::{function} ({file}:{line}, key \"{}\")", keys.join("\", \""))
    }
}
