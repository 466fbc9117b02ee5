//! The examples are in folders of their own beside this file's; see the README.
