//! Installing a registry, after verifying every annotated function of the binary.

use std::fmt;

use super::{BuildError, INSTALLED, Registry, RegistryBuilder};
use crate::backend::Mode;
use crate::engine::Engine;
use crate::engine::supported::supporting_backends;
use crate::engine::telemetry::meters;
use crate::site::Site;

impl RegistryBuilder {
    /// Installs the process's registry, after verifying every annotated function in the binary.
    ///
    /// # Errors
    /// Those of [`build`](Self::build); [`InstallError::Sites`] with every annotated function whose
    /// backend is not registered or does not support its options, or that uses the key template of another
    /// one with a different number of permits; and [`InstallError::AlreadyInstalled`] if a registry is
    /// already installed.
    pub fn install(self) -> Result<Registry, InstallError> {
        let allowed = self.unregistered.clone();
        let registry = self.build()?;
        let sites: Vec<_> = Registry::sites()
            .into_iter()
            .filter(|site| !site.is_in_transaction())
            .filter(|site| site.backend_name().is_none_or(|name| !allowed.contains(name)))
            .collect();
        let inner = &registry.0;
        let unable = sites.iter().filter_map(|site| inner.problem_of(site));
        let problems: Vec<_> = unable.chain(inner.disagreements(&sites)).collect();
        if !problems.is_empty() {
            return Err(InstallError::Sites(problems));
        }
        warn_about_mixed_forms();
        for site in &sites {
            if let Ok(backend) = inner.find(site.backend_name()) {
                site.keys().iter().for_each(|template| meters::begin(template, &backend.name));
            }
        }
        INSTALLED.set(registry.clone()).map_err(|_| InstallError::AlreadyInstalled)?;
        Ok(registry)
    }
}

/// A lease and a row lock with the same template do not exclude each other, which is hardly intended.
fn warn_about_mixed_forms() {
    let (rows, leases): (Vec<&Site>, Vec<&Site>) =
        Registry::sites().into_iter().partition(|site| site.is_in_transaction());
    for row in rows {
        let same = |lease: &&&Site| lease.keys().iter().any(|key| row.keys().contains(key));
        if let Some(lease) = leases.iter().find(same) {
            tracing::warn!(
                target: "dlock",
                row_lock = %row,
                lease = %lease,
                "the same key template is used for a row lock and for a lease: they do not exclude each other"
            );
        }
    }
}

impl Engine {
    fn problem_of(&self, site: &'static Site) -> Option<SiteProblem> {
        let problem = match self.find(site.backend_name()) {
            Err(_) => match site.backend_name() {
                Some(name) => format!("no backend is registered as `{name}`"),
                None => "it names no backend, and the registry has no default".to_owned(),
            },
            Ok(backend) => {
                let ttl = site.options.ttl.unwrap_or(self.default_ttl);
                let problem = backend.refuses(ttl, &site.options)?;
                let able = self.backends();
                let able = able.filter(|other| other.refuses(ttl, &site.options).is_none());
                let able: Vec<_> = able.map(|other| format!("`{}`", other.name)).collect();
                let instead = match (able.join(", "), supporting_backends(ttl, &site.options)) {
                    (registered, _) if !registered.is_empty() => format!("; {registered} can"),
                    (_, kinds) if !kinds.is_empty() => format!("; backends that can: {kinds}"),
                    _ => String::new(),
                };
                format!("backend `{}` cannot honour {problem}{instead}", backend.name)
            }
        };
        Some(self.site_problem(site, problem))
    }

    fn site_problem(&self, site: &'static Site, problem: String) -> SiteProblem {
        SiteProblem { site, problem, registered: self.names() }
    }

    /// Sites that use the same template with different numbers of permits. The smaller number would not limit
    /// the holders, and the larger one could not be reached.
    fn disagreements(&self, sites: &[&'static Site]) -> Vec<SiteProblem> {
        let counted = |site: &Site| matches!(site.options.mode, Mode::Permits(_));
        let index = |site: &Site| self.find(site.backend_name()).ok().map(|found| found.index);
        let disagree = |one: &Site, other: &Site| {
            one.options.mode != other.options.mode
                && counted(one)
                && index(one) == index(other)
                && one.keys().iter().any(|key| other.keys().contains(key))
        };
        let mut problems = Vec::new();
        for (position, site) in sites.iter().copied().enumerate() {
            let earlier = sites[..position].iter().copied();
            let Some(other) =
                earlier.into_iter().find(|other| disagree(site, other) || disagree(other, site))
            else {
                continue;
            };
            let problem = format!(
                "{} here and {} in {other}: one key has one number of permits",
                permits(site),
                permits(other)
            );
            problems.push(self.site_problem(site, problem));
        }
        problems
    }
}

fn permits(site: &Site) -> String {
    match site.options.mode {
        Mode::Exclusive => "permits = 1".to_owned(),
        Mode::Shared => "mode = \"shared\"".to_owned(),
        Mode::Permits(permits) => format!("permits = {permits}"),
    }
}

/// Why a registry could not be installed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The registry does not support some annotated functions.
    #[error("{}", list(.0))]
    Sites(Vec<SiteProblem>),
    /// A registry is already installed in this process.
    #[error(
        "a lock registry is already installed in this process; for another one use `build()` and `registry.scope(…)`"
    )]
    AlreadyInstalled,
}

crate::debug_as_display::debug_as_display!(InstallError);

/// An annotated function that a registry does not support.
#[derive(Clone, Debug)]
pub struct SiteProblem {
    site: &'static Site,
    problem: String,
    registered: String,
}

impl SiteProblem {
    /// Returns the function.
    #[must_use]
    pub fn site(&self) -> &'static Site {
        self.site
    }
}

impl fmt::Display for SiteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.site, self.problem)
    }
}

fn list(problems: &[SiteProblem]) -> String {
    let mut text = format!("{} lock site(s) cannot work with this registry:", problems.len());
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    if let Some(problem) = problems.first() {
        text.push_str("\nregistered backends: ");
        text.push_str(&problem.registered);
        text.push_str(
            "; to ignore the sites of a linked library that is never called, use `.allow_unregistered(name)`",
        );
    }
    text
}
