//! The attribute [`#[distributed_lock]`](macro@distributed_lock) of `dlock-runtime`.
//!
//! Depend on `dlock-runtime`, which re-exports it. The attribute turns an async function into one
//! call of that crate: everything that happens at run time is found there.

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

/// Runs an async function under a distributed lock: of all calls with the same key, in all processes
/// that share the backend, one runs at a time.
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
/// The function returns `Result<T, E>` where `E` implements `From<LockError>` (as `anyhow::Error`
/// and `Box<dyn Error + Send + Sync>` do), or names a function with [`map_err`](#options).
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `key = "product:<id>"` | what is locked: a [template](#keys), or any expression that is `impl Into<LockKey>` | required, or `keys` |
/// | `keys = ["account:<from>", "account:<to>"]` | several locks, all or nothing, taken in one canonical order, so that two such callers never deadlock; equal keys are one | |
/// | `ttl = "5s"` | the length of the lease: how soon others may enter after this process dies. From 10 ms to a day | the registry's, 30 s |
/// | `wait = "2s"` | how long to wait for a busy lock. `"0s"` tries once, `"forever"` has no deadline | one `ttl` and 1 s |
/// | `backend = "redis"` | the name under which a backend is registered | the registry's default |
/// | `mode = "exclusive"` | `"shared"`: a reader, which excludes writers only. A writer that waits is not passed by readers that come later | `"exclusive"` |
/// | `permits = 5` | at most so many holders at once: a semaphore, with a lease and a token for each | `1` |
/// | `fair = true` | first come, first served, over the tasks of all processes | `false` |
/// | `renew = true` | renew the lease while the body runs; with `false` the body must end within one `ttl` | `true` |
/// | `max_hold = "1m"` | an upper bound for the body, even with renewal | none |
/// | `min_hold = "30s"` | keep the lease at least this long: for scheduled jobs on clocks that differ | none |
/// | `on_busy = "error"` | the lock was not free within `wait`: `"error"` returns it, `"skip"` skips the body and returns `Ok(None)` from a `Result<Option<T>, E>`, `Ok(())` from a `Result<(), E>` | `"error"` |
/// | `on_lost = "cancel"` | the lease was lost while the body runs: `"cancel"` drops the body at its next await point and reports the loss, `"finish"` lets it end and then reports, `"keep"` lets its own result stand. A body that failed by itself returns its own error in each case | `"cancel"` |
/// | `reentrant = true` | a nested call for a key that this task already holds enters | `true` |
/// | `guard = lock` | binds `lock: &LockGuard` in the body (with `keys`, `&LockSet`): the fencing token, the time left, `lost()` | |
/// | `transaction = tx` | takes a [row lock](#row-locks) in the caller's own sqlx transaction, the argument `tx`, instead of a lease | |
/// | `unlock_before_commit = true` | insists on a lease although the function receives its caller's transaction, which is committed only after the lease has ended | `false` |
/// | `map_err = path` | a function `fn(LockError) -> E`, for error types that cannot have `From<LockError>` | `From` |
/// | `crate = path` | where the runtime crate is, if it is renamed | `::dlock_runtime` |
///
/// Durations are numbers with units in a string: `"250ms"`, `"5s"`, `"1m 30s"`. All mistakes in an
/// attribute are reported together when the program is compiled.
///
/// # Keys
///
/// A template is literal text with placeholders `<name>`. A placeholder begins with an argument,
/// `self`, a const generic or an upper-case constant and goes on with any of `.field`, `.0` and
/// `.method()`. It only looks at its value: a method that would consume or change it does not
/// compile. Values are rendered by `Display`. `<<` and `>>` are literal brackets.
///
/// ```ignore
/// #[distributed_lock(key = "shop:<self.id>:order:<order.customer.id()>")]
/// async fn place(&self, order: Order) -> Result<(), ShopError> { /* … */ }
/// ```
///
/// *Different values give different keys.* In a value everything that could be mistaken for the
/// template's own structure (`%` `:` `/` `<` `>` `{` `}` `,`, white space, control characters) is
/// percent-encoded, and two placeholders must have one of these (but `%`) between them: `<a>-<b>`
/// does not compile, because `"x-y"`, `"z"` and `"x"`, `"y-z"` would give the same key. A value that
/// renders to nothing is an error, as is a key over 512 bytes. `{name}` is refused, because it is how
/// `format!` writes it and would be one key for all.
///
/// For everything else write an expression. It sees the arguments as the body does:
///
/// ```ignore
/// #[distributed_lock(key = LockKey::of("cart", &[&user.id(), &items[0]]))]
/// async fn check_out(user: &User, items: &[u64]) -> Result<(), ShopError> { /* … */ }
/// ```
///
/// # Row locks
///
/// A lease ends when the function does. If the caller commits a transaction after that, the next
/// holder reads what was there before: so a function that receives a transaction
/// (`&mut Transaction<…>`) does not compile under a lease. Lock a row in that very transaction:
///
/// ```ignore
/// #[distributed_lock(key = "product:<id>", wait = "2s", transaction = tx)]
/// async fn purchase(tx: &mut Transaction<'_, Postgres>, id: i64) -> Result<(), ShopError> {
///     sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = $1").bind(id).execute(&mut **tx).await?;
///     Ok(())
/// }
/// ```
///
/// It is held until the transaction ends, by commit, roll-back or the loss of the connection; the
/// function need not do anything for it. Beside it `key` or `keys`, `wait`, `on_busy`, `mode`, `guard` (binds
/// `&RowLock`, with `keys` `&RowLocks`), `map_err` and `crate` have a meaning. See the runtime crate's
/// module `transaction`.
///
/// # Functions
///
/// - `async fn`, free or a method with any receiver, in an `impl`, in a trait with a body, or under
///   `#[async_trait]`.
/// - A function that returns `impl Future<Output = Result<T, E>>`.
/// - A function that returns `Pin<Box<dyn Future<Output = Result<T, E>>>>`, `BoxFuture`,
///   `LocalBoxFuture` or another alias of such a type, whose name ends in `Future` or `Fut`.
///
/// Nothing of the function runs before its future is polled for the first time, the key and the
/// statements before the future of the latter two included. Such a future therefore holds all
/// arguments: it cannot be `'static` when they are not.
///
/// Every argument and `self` is dropped before the lock is released, whether or not the body uses it.
/// An argument whose pattern leaves a part out (`_`, `..`, `ref`) is taken whole and unpacked in the
/// body.
///
/// Other attributes may stand before or after this one.
#[proc_macro_attribute]
pub fn distributed_lock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute::expand(arguments.into(), &item.into()).into()
}

/// Asserts that this very task holds a lock: for code that may only run under one.
///
/// ```ignore
/// fn set_stock(id: u64, stock: u32) {
///     assert_locked!("product:<id>");
///     // …
/// }
/// ```
///
/// The key is a template as in [`#[distributed_lock]`](macro@distributed_lock), whose placeholders begin with
/// names in scope, or an expression that is `impl Into<LockKey>`. A lock that is held together with others
/// (shared, or by permit) counts only with `mode = "shared"`; the runtime crate is named by `crate = path` if
/// it is renamed.
///
/// The locks that count are those around the code in the same task: of the attribute and of `Lock::run`, while
/// they are provably held. A spawned task holds none, and neither does a bare guard count nor a row lock. A
/// test takes them for held with `dlock_runtime::testing::assume_locked`.
///
/// # Panics
/// When the task does not hold the lock, or the key cannot be rendered.
#[proc_macro]
pub fn assert_locked(input: TokenStream) -> TokenStream {
    assertion::expand(input.into()).into()
}
