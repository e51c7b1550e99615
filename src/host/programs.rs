//! Finds or builds what a pod runs: its interpreter and its environment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use semver::VersionReq;
use tokio::sync::OnceCell;

use super::HostState;
use crate::{
    disk::{open, owner::Writers},
    model::{Fault, Verified, limits::LOCK_BYTES_MAX, manifest::spec::Runtime},
    pod::Program,
    shelf::{
        blocking,
        environment::{
            self, Environment, Existing, Wanted,
            python::{self, Python},
            tools::Tools,
        },
        store::lockfile::EnvironmentPin,
    },
};

/// The tools of this host, and the interpreters found with them.
pub struct Programs {
    tools: Tools,
    /// Found interpreters by requested range, kept because each look-up starts a process.
    pythons: Mutex<HashMap<String, Arc<OnceCell<Python>>>>,
}

impl Programs {
    pub fn new(tools: Tools) -> Programs {
        Programs { tools, pythons: Mutex::default() }
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }
}

impl HostState {
    /// The program that runs a recipe's pod, and the environment, which the caller holds while the pod lives.
    /// `pinned` is the environment that the lock file names; it is rebuilt if it is gone.
    ///
    /// Errors: `python_missing`, `uv_missing`, `environment_failed`, `disk_full`.
    pub(super) async fn program(
        &self,
        recipe: &Arc<Verified>,
        pinned: Option<EnvironmentPin>,
    ) -> Result<(Program, Option<Environment>), Fault> {
        let pinned = pinned.map(|pin| environment::open(&self.home, pin.digest)).transpose()?.flatten();
        let environment = match pinned {
            Some(environment) => Some(environment),
            None => self.build_environment(recipe, Existing::Trust).await?,
        };
        let program = match &environment {
            Some(environment) => Program {
                base: environment.interpreter.clone(),
                python: environment.python.clone(),
                site_packages: Some(environment.site_packages.clone()),
            },
            None => {
                let python = self.python(recipe).await?.executable;
                Program { base: python.clone(), python, site_packages: None }
            }
        };
        // Check right before the files are used: whoever can write there would be in the pod, with its
        // grants.
        let writers = Writers::new(self.home.group());
        if !recipe.is_unsigned() {
            writers.check_with_above(recipe.folder())?;
            recipe.models_folder().map_or(Ok(()), |folder| writers.check_with_above(folder))?;
        }
        environment.as_ref().map_or(Ok(()), |environment| writers.check_with_above(&environment.folder))?;
        Ok((program, environment))
    }

    /// The recipe's environment, built if it is missing; `None` for a recipe without requirements.
    pub(super) async fn build_environment(&self, recipe: &Arc<Verified>, existing: Existing) -> Result<Option<Environment>, Fault> {
        let manifest = recipe.manifest();
        let Some(Runtime::Python { lock: Some(lock), .. }) = manifest.pod.as_ref().map(|pod| &pod.runtime) else { return Ok(None) };
        let python = self.python(recipe).await?;
        let path = recipe.folder().join(lock);
        let bytes =
            blocking(move || open::read(&path, LOCK_BYTES_MAX).map_err(|error| Fault::io(format!("reading {}", path.display()), &error)))
                .await?;
        let (what, label) = (format!("{lock} of {}", manifest.name), manifest.name.to_string());
        let compiler = self.pod_services.compiler();
        let indexes = self.programs.tools.indexes.for_recipe(&manifest.name);
        let wanted = Wanted { lock: &bytes, what: &what, python: &python, existing, indexes, label: &label, compiler: &compiler };
        environment::ensure(&self.home, &self.programs.tools, &wanted, &self.progress).await.map(Some)
    }

    /// The interpreter that the recipe wants; each range is looked up once.
    pub(super) async fn python(&self, recipe: &Arc<Verified>) -> Result<Python, Fault> {
        let range = match recipe.manifest().pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { python, .. }) => python.clone(),
            // Every pod's keeper is a Python program, whatever the pod is.
            Some(Runtime::Executable { .. }) | None => VersionReq::parse(">=3.9").expect("a constant range"),
        };
        // Each range has its own lock, so that a range without an interpreter delays no other.
        let cell = {
            let mut known = self.programs.pythons.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(range.to_string()).or_default().clone()
        };
        cell.get_or_try_init(|| python::find(&range, self.programs.tools.python.as_deref())).await.cloned()
    }
}
