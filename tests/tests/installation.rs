//! What `install` checks: every annotated function of this binary.

use std::time::Duration;

use dlock_runtime::backend::{
    Answer, Attempt, Backend, Capabilities, Claim, Holder, LockState, Memory, Release, Released,
    Renewal, Watch,
};
use dlock_runtime::{BackendError, InstallError, LockError, LockKey, Registry, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = "5s", backend = "shop")]
async fn purchase(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

#[distributed_lock(key = "report", min_hold = "1m", ttl = "20s", backend = "jobs")]
async fn report() -> Result<(), LockError> {
    Ok(())
}

/// The same key with two different numbers of permits.
#[distributed_lock(key = "printer", permits = 3, backend = "office")]
#[allow(dead_code)]
async fn print() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "printer", permits = 4, backend = "office")]
#[allow(dead_code)]
async fn print_more() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "catalogue", mode = "shared", fair = true, backend = "library")]
#[allow(dead_code)]
async fn browse() -> Result<(), LockError> {
    Ok(())
}

struct Unused;

impl Unused {
    #[distributed_lock(key = "never:<id>", backend = "linked")]
    #[allow(dead_code)]
    async fn called(&self, id: u64) -> Result<u64, LockError> {
        Ok(id)
    }
}

/// Runs in the caller's transaction. It needs no backend, but its key is also the key of a lease.
#[distributed_lock(key = "product:<id>", transaction = tx)]
#[allow(dead_code)]
async fn sell(id: u64, tx: &mut sqlx::PgTransaction<'_>) -> Result<u64, LockError> {
    Ok(id)
}

/// A limited store: no short leases, no `min_hold`.
struct Limited(Memory);

impl Backend for Limited {
    fn kind(&self) -> &'static str {
        "limited"
    }
    fn capabilities(&self) -> Capabilities {
        let shortest = Duration::from_secs(10);
        Capabilities::LEASES.with_ttl(shortest, Duration::from_mins(1)).with_min_hold(false)
    }
    fn try_acquire<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Attempt, BackendError>> {
        self.0.try_acquire(claim)
    }
    fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
        self.0.renew(claim)
    }
    fn release<'a>(
        &'a self,
        claim: &'a Claim,
        release: Release,
    ) -> Answer<'a, Result<Released, BackendError>> {
        self.0.release(claim, release)
    }
    fn watch<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
        self.0.watch(key)
    }
    fn inspect<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<Option<Holder>, BackendError>> {
        self.0.inspect(key)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
        self.0.list(prefix)
    }
    fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.0.revoke(key)
    }
    fn force_release<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
        self.0.force_release(key)
    }
}

/// A single test, because a process can install only one registry.
#[tokio::test]
async fn install_verifies_every_site_and_happens_once() {
    let _ = Unused;
    assert!(matches!(Registry::global(), Err(LockError::NotInstalled)));

    let sites = Registry::sites();
    let functions: Vec<_> = sites.iter().map(|site| site.function()).collect();
    assert_eq!(
        functions,
        ["purchase", "report", "print", "print_more", "browse", "called", "sell"]
    );

    let refused = Registry::builder().backend("shop", Memory::new()).install();
    let text = refused.expect_err("two backends are missing").to_string();
    for part in
        ["::report (", "::called (", "`jobs`", "`linked`", file!(), "never:<id>", "installation::"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains("purchase"), "{text}");
    let line = sites[1].line();
    assert!(text.contains(&format!("{}:{line}", file!())), "{text}");

    let refused = Registry::builder()
        .backend("shop", Limited(Memory::new()))
        .backend("jobs", Limited(Memory::new()))
        .allow_unregistered("linked")
        .allow_unregistered("office")
        .allow_unregistered("library")
        .install();
    let text = refused.expect_err("two options cannot be honoured").to_string();
    assert!(text.contains("ttl = 5s: its shortest is 10s"), "{text}");
    assert!(text.contains("min_hold"), "{text}");
    assert!(!text.contains("::called ("), "{text}");

    let refused = Registry::builder()
        .backend("shop", Memory::new())
        .backend("jobs", Limited(Memory::new()))
        .backend("office", Memory::new())
        .backend("library", Limited(Memory::new()))
        .allow_unregistered("linked")
        .install();
    let text = refused.expect_err("kinds of locks that cannot be honoured").to_string();
    for part in [
        "backend `library` cannot honour mode = \"shared\"",
        "`shop`, `office` can",
        "permits = 4 here and permits = 3 in ",
        "one key has one number of permits",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains("::purchase ("), "{text}");
    let alone = Registry::builder().backend("library", Limited(Memory::new()));
    let text = alone.install().expect_err("nothing else is registered").to_string();
    assert!(text.contains("backends that can: memory, sqlite, redis, postgres"), "{text}");

    // What `install` reports at startup, a call reports if nothing was installed.
    let local = Registry::builder().backend("shop", Limited(Memory::new())).build();
    let local = local.expect("a registry");
    let answer = local.scope(purchase(1)).await;
    assert!(matches!(answer, Err(LockError::Unsupported { .. })), "{answer:?}");

    let builder = || {
        let builder = Registry::builder().backend("shop", Memory::new());
        let builder = builder.backend("jobs", Memory::new()).backend("library", Memory::new());
        builder.allow_unregistered("linked").allow_unregistered("office")
    };
    let (installed, logged) = dlock_tests::logs::collect(|| builder().install());
    installed.expect("all is well");
    assert_eq!(logged.lines().count(), 1, "{logged}");
    for part in ["WARN", "::sell (", "::purchase (", "do not exclude each other"] {
        assert!(logged.contains(part), "{part} is not in: {logged}");
    }
    assert!(matches!(builder().install(), Err(InstallError::AlreadyInstalled)));
    // As `fn main() -> Result<(), Box<dyn Error>>` shows it.
    let error = builder().install().expect_err("installed already");
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!(purchase(3).await.expect("installed"), 3);
    report().await.expect("installed");
    let backends: Vec<_> =
        Registry::global().expect("installed").backends().map(str::to_owned).collect();
    assert_eq!(backends, ["shop", "jobs", "library"]);
}

#[test]
fn an_invalid_registry_is_not_built() {
    let text = |result: Result<Registry, dlock_runtime::BuildError>| {
        result.expect_err("the registry is invalid").to_string()
    };
    assert!(text(Registry::builder().build()).contains("at least one backend"));
    let twice = Registry::builder().backend("a", Memory::new()).backend("a", Memory::new());
    assert!(text(twice.build()).contains("two backends"));
    let unnamed = Registry::builder().backend(" ", Memory::new());
    assert!(text(unnamed.build()).contains("empty"));
    let unknown = Registry::builder().backend("a", Memory::new()).default_backend("b");
    assert!(text(unknown.build()).contains("`b`"));
    let zero = Registry::builder().backend("a", Memory::new()).default_ttl(Duration::ZERO);
    assert!(text(zero.build()).contains("ttl"));
}
