//! The attribute [`#[distributed_lock]`](macro@distributed_lock) of `dlock-runtime`.
//!
//! Depend on `dlock-runtime`, which re-exports it. The attribute turns an async function into one
//! call of that crate, which does everything that happens at run time.

mod assertion;
mod attribute;
mod diagnostic;
mod duration;
mod expand;
mod item;
mod options;
mod scope;
mod signature;
mod template;

use proc_macro::TokenStream;

/// Runs an async function under a distributed lock.
///
/// Across all processes that share the backend, only one call at a time runs for a given key.
///
/// ```ignore
/// use dlock_runtime::{LockError, distributed_lock};
///
/// #[distributed_lock(key = "product:<id>", ttl = "5s", backend = "redis")]
/// async fn purchase(id: u64, quantity: u32) -> Result<Receipt, ShopError> {
///     // …
/// }
/// ```
///
/// The function returns `Result<T, E>`, where `E` implements `From<LockError>` (as `anyhow::Error`
/// and `Box<dyn Error + Send + Sync>` do), or the attribute names a conversion with
/// [`map_err`](#options).
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `key = "product:<id>"` | what to lock: a [template](#keys), or any expression that is `impl Into<LockKey>` | required, or `keys` |
/// | `keys = ["account:<from>", "account:<to>"]` | several locks, all or none, acquired in one canonical order, so that such callers never deadlock; equal keys are one lock | |
/// | `ttl = "5s"` | the length of the lease: how soon others can acquire the lock after this process dies. From 10 ms to a day | the registry's, 30 s |
/// | `wait = "2s"` | the acquire timeout: how long to wait for a contended lock. `"0s"` tries once, `"forever"` has no timeout | one `ttl`, the `grace` and 1 s; `"0s"` with `on_busy = "skip"` |
/// | `backend = "redis"` | the name under which the backend is registered | the registry's default |
/// | `mode = "exclusive"` | `"shared"`: a reader, which excludes only writers. Readers that arrive later do not pass a waiting writer | `"exclusive"` |
/// | `permits = 5` | at most this many holders at once: a semaphore, with a lease and a token for each holder | `1` |
/// | `fair = true` | first come, first served, across the tasks of all processes | `false` |
/// | `handover = "64 in 10ms"` | how often, and for how long, this process may pass the lock from task to task before the store decides who is next; `"off"` sends every release to the store. See `Handover` | the registry's, `"64 in 10ms"` |
/// | `renew = true` | renew the lease while the body runs; with `false` the body must end within one `ttl` | `true` |
/// | `max_hold = "1m"` | an upper bound for the body, even with renewal | none |
/// | `min_hold = "30s"` | keep the lease at least this long: for scheduled jobs on machines whose clocks differ | none |
/// | `grace = "2s"` | a lock-delay: after a hold that was lost, stopped or never released, the lock stays locked for this long, so that what the holder had sent to a resource without fencing arrives before the next holder begins | none |
/// | `on_busy = "error"` | what to do if the lock is still busy after `wait`: `"error"` returns the error; `"skip"` skips the body and returns `Ok(None)` from a `Result<Option<T>, E>`, or `Ok(())` from a `Result<(), E>` | `"error"` |
/// | `on_lost = "cancel"` | what to do if the lease is lost while the body runs: `"cancel"` drops the body at its next await point and reports the loss; `"finish"` lets it finish, then reports the loss; `"keep"` returns the body's own result. If the body itself fails, its own error is returned in every case | `"cancel"` |
/// | `reentrant = true` | a nested call for a key that this task already holds enters without waiting; with `false` it is an error | `true` |
/// | `guard = lock` | binds `lock: &LockGuard` in the body (with `keys`, `&LockSet`): the fencing token, the time left, `lost()` | |
/// | `transaction = tx` | acquires a [row lock](#row-locks) in the caller's own sqlx transaction, the argument `tx`, instead of a lease | |
/// | `unlock_before_commit = true` | uses a lease even though the function receives its caller's transaction, which commits only after the lease has ended | `false` |
/// | `map_err = path` | a function `fn(LockError) -> E`, for an `E` that cannot implement `From<LockError>` | `From` |
/// | `crate = path` | the path of the runtime crate, if it is renamed | `::dlock_runtime` |
///
/// Durations are strings of numbers with units: `"250ms"`, `"5s"`, `"1m 30s"`. All mistakes in an
/// attribute are reported together at compile time.
///
/// # Keys
///
/// A template is literal text with placeholders `<name>`. A placeholder begins with an argument,
/// `self`, a const generic or an upper-case constant, followed by any of `.field`, `.0` and
/// `.method()`. It only borrows its value: a method that would consume or mutate it does not
/// compile. Values are rendered with `Display`. `<<` and `>>` are literal brackets.
///
/// ```ignore
/// #[distributed_lock(key = "shop:<self.id>:order:<order.customer.id()>")]
/// async fn place(&self, order: Order) -> Result<(), ShopError> { /* … */ }
/// ```
///
/// *Different values give different keys.* Characters in a value that could be mistaken for the
/// template's own structure (`%` `:` `/` `<` `>` `{` `}` `,`, white space, control characters) are
/// percent-encoded. Two placeholders must have one of these characters (other than `%`) between
/// them: `<a>-<b>` does not compile, because `"x-y"`, `"z"` and `"x"`, `"y-z"` would give the same
/// key. A value that renders to nothing is an error, as is a key over 512 bytes. `{name}` is
/// rejected: it is `format!` syntax, and here it would be literal text, giving one key for all
/// values.
///
/// For anything else, write an expression. It sees the arguments as the body does:
///
/// ```ignore
/// #[distributed_lock(key = LockKey::of("cart", &[&user.id(), &items[0]]))]
/// async fn check_out(user: &User, items: &[u64]) -> Result<(), ShopError> { /* … */ }
/// ```
///
/// # Row locks
///
/// A lease ends when the function does. If the caller commits a transaction after that, the next
/// holder may read the state from before the commit. So a function that receives a transaction
/// (`&mut Transaction<…>`) does not compile under a lease. Lock a row in that transaction instead:
///
/// ```ignore
/// #[distributed_lock(key = "product:<id>", wait = "2s", transaction = tx)]
/// async fn purchase(tx: &mut Transaction<'_, Postgres>, id: i64) -> Result<(), ShopError> {
///     sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = $1").bind(id).execute(&mut **tx).await?;
///     Ok(())
/// }
/// ```
///
/// The row lock is held until the transaction ends, by commit, rollback or the loss of the
/// connection. The function need not do anything to release it. The options that apply to a row
/// lock are `key` or `keys`, `wait`, `on_busy`, `mode`, `guard` (binds `&RowLock`, or `&RowLocks`
/// with `keys`), `map_err` and `crate`. See the runtime crate's module `transaction`.
///
/// # Functions
///
/// - `async fn`: a free function, or a method with any receiver, in an `impl`, in a trait with a
///   body, or under `#[async_trait]`.
/// - A function that returns `impl Future<Output = Result<T, E>>`.
/// - A function that returns `Pin<Box<dyn Future<Output = Result<T, E>>>>`, `BoxFuture`,
///   `LocalBoxFuture` or another alias of such a type, if its name ends in `Future` or `Fut`.
///
/// No part of the function runs before its future is first polled. That includes the key and, for
/// functions that return a future, the statements before that future. The future therefore holds
/// all arguments, and is `'static` only if they are.
///
/// Every argument and `self` is dropped before the lock is released, whether or not the body uses
/// it. An argument whose pattern ignores or borrows a part (`_`, `..`, `ref`) is moved whole and
/// destructured in the body.
///
/// Other attributes may come before or after this one.
#[proc_macro_attribute]
pub fn distributed_lock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute::expand(arguments.into(), &item.into()).into()
}

/// Asserts that the current task holds a lock, for code that may only run under one.
///
/// ```ignore
/// fn set_stock(id: u64, stock: u32) {
///     assert_locked!("product:<id>");
///     // …
/// }
/// ```
///
/// The key is a template as in [`#[distributed_lock]`](macro@distributed_lock), whose placeholders
/// begin with names in scope, or an expression that is `impl Into<LockKey>`. A lock that others can
/// hold at the same time (shared, or by permit) counts only with `mode = "shared"`. If the runtime
/// crate is renamed, name it with `crate = path`.
///
/// Only locks held around the code in the same task count: those of the attribute and of
/// `Lock::run`, while the lease can be proved. A spawned task holds none of them. A bare guard or a
/// row lock does not count. In a test, `dlock_runtime::testing::assume_locked` makes a lock count
/// as held.
///
/// # Panics
/// If the task does not hold the lock, or the key cannot be rendered.
#[proc_macro]
pub fn assert_locked(input: TokenStream) -> TokenStream {
    assertion::expand(input.into()).into()
}
