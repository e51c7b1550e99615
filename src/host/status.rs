//! Status reports of a host for its operator, and the few actions that go with them.

use super::Host;
use crate::{
    model::{
        Fault, RecipeName, RecipeRef, ServeRules,
        status::{DamagedStatus, HostStatus, PodStatus, machine::ResidencyEvent},
    },
    pod::Dossier,
    shelf::config::Config as File,
};

impl super::HostState {
    fn damaged(&self) -> Vec<DamagedStatus> {
        let each = |(recipe, fault): (RecipeName, Fault)| DamagedStatus { recipe: recipe.to_string(), fault };
        self.catalogue.damaged().into_iter().map(each).collect()
    }
}

impl Host {
    /// The pods that this host started and that are not over, including those of forgotten recipes. Reads
    /// each pod's memory from the system.
    pub fn pods(&self) -> Vec<PodStatus> {
        self.0.pods.statuses()
    }

    /// The last fault of each recipe in use whose pods ended badly, including ends that no call's outcome
    /// reports.
    #[doc(hidden)]
    pub fn pod_faults(&self) -> Vec<Fault> {
        self.0.pods.pool_statuses().into_iter().filter_map(|pool| pool.last_fault).collect()
    }

    /// Whether the host takes calls; `false` once it shuts down.
    #[doc(hidden)]
    pub fn accepts(&self) -> bool {
        !self.0.lifecycle.is_closing()
    }

    /// Whether a call would be accepted now. Reads `hob.toml` again while it is unreadable.
    ///
    /// Errors: the fault that every call would get: `shutting_down`, `invalid_config`, `io`.
    pub fn ready(&self) -> Result<(), Fault> {
        self.0.lifecycle.check_open("begins no call any more")?;
        self.0.catalogue.look(&self.0).map(drop)
    }

    /// A summary of the whole host. Reads `hob.toml` again while it is unreadable, as [`ready`](Host::ready)
    /// does.
    pub fn status(&self) -> HostStatus {
        let refused = self.ready().err();
        let (running, done, failed) = self.0.journal.counts();
        HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            up_ms: self.0.lifecycle.up().as_millis() as u64,
            accepts: refused.is_none(),
            refused,
            calls_running: running,
            calls_done: done,
            calls_failed: failed,
            pools: self.0.pods.pool_statuses(),
            damaged: self.0.damaged(),
            machine: self.0.memory.status(),
            zygotes: self.0.catalogue.entries().iter().filter_map(|entry| entry.zygote()).collect(),
        }
    }

    /// Events of loaded models and of pods that wait for memory, oldest first: the last
    /// [`RESIDENCY_EVENTS_MAX`](crate::model::limits::RESIDENCY_EVENTS_MAX). They show whether two things
    /// that must not happen together did.
    pub fn residency_events(&self) -> Vec<ResidencyEvent> {
        self.0.memory.events()
    }

    /// The dossiers of crashed pods, of this host and of earlier ones, newest first. Blocking.
    pub fn dossiers(&self) -> Vec<Dossier> {
        crate::pod::dossiers(&self.0.home.dossiers())
    }

    /// The rules for a server in `hob.toml`. Blocking.
    ///
    /// Errors: `invalid_config`.
    #[doc(hidden)]
    pub fn serve_rules(&self) -> Result<ServeRules, Fault> {
        Ok(File::read(&self.0.home)?.serve)
    }

    /// Reads `hob.toml` again, without waiting for the next periodic look. The grants in it hold from now on.
    /// Blocking.
    ///
    /// Errors: `invalid_config`; every call fails with it too until the file can be read, because grants are
    /// never guessed.
    #[doc(hidden)]
    pub fn read_anew(&self) -> Result<ServeRules, Fault> {
        let rules = self.serve_rules()?;
        self.0.catalogue.refresh(&self.0)?;
        Ok(rules)
    }

    /// Lets a recipe that cools down start pods again, and lets inputs that ended its pods be tried again.
    ///
    /// Errors: `recipe_not_found`.
    pub fn lift(&self, recipe: &RecipeName) -> Result<(), Fault> {
        let known = self.0.pods.lift(&recipe.to_string());
        // A recipe that was never called has nothing to lift; a name that is not installed is a mistake.
        if known { Ok(()) } else { self.0.shelf.entry(recipe).map(|_| ()) }
    }

    /// Starts the minimum of pods of each installed recipe (`min`). A failed start is logged; the first call
    /// tries again.
    #[doc(hidden)]
    pub async fn warm(&self) {
        let installed = match self.installed() {
            Ok(installed) => installed,
            Err(fault) => return tracing::warn!("nothing is warmed up: {fault}"),
        };
        for entry in installed {
            if let Err(fault) = self.warm_one(&entry.name).await {
                tracing::warn!(recipe = %entry.name, "not warmed up: {fault}");
            }
        }
    }

    async fn warm_one(&self, name: &RecipeName) -> Result<(), Fault> {
        let entry = self.0.catalogue.find(&self.0, &RecipeRef::Name(name.clone())).await?;
        if let Some(pool) = entry.pool(&self.0).filter(|_| entry.recipe().manifest().pod.as_ref().is_some_and(|pod| pod.pool.min > 0)) {
            pool.warm();
        }
        Ok(())
    }
}
