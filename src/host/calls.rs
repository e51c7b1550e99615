//! How an app makes a call: to its end, or with the events of the call as they come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{Host, journal::Record, run};
use crate::{
    disk::threads,
    model::{Call, Code, Event, Fault, Outcome, RecipeName, RecipeRef, events, limits},
    shelf,
};

impl Host {
    /// Runs a call to its end. Chunks and progress are dropped: a streaming operation gives only its final
    /// output. [`Host::call_with`] and [`Host::start`] give the events.
    ///
    /// Dropping the future cancels the call down to the worker.
    pub async fn call(&self, call: Call) -> Result<Outcome, Fault> {
        shelf::runtime()?;
        let (events, mut dropped) = self.events();
        let drain = async {
            while dropped.recv().await.is_some() {}
            std::future::pending().await
        };
        // Do not wait until all senders are gone: a pod that is busy with other calls may hold one for long.
        tokio::select! {
            outcome = run::run(&self.0, call, events) => outcome,
            never = drain => never,
        }
    }

    /// Runs a call to its end, and reads its output as a type of the app. [`Host::call`] also gives blobs,
    /// and the recipe that answered.
    ///
    /// ```no_run
    /// # async fn f(host: hob::Host) -> Result<(), hob::Fault> {
    /// #[derive(serde::Serialize)]
    /// struct Texts<'a> { texts: &'a [&'a str] }
    /// #[derive(serde::Deserialize)]
    /// struct Embeddings { embeddings: Vec<Vec<f32>> }
    ///
    /// let texts = Texts { texts: &["one", "two"] };
    /// let found: Embeddings = host.call_typed(hob::Call::new("hob/sentence-embeddings", "embed", texts)?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: those of the call; `usage` if the output has another shape.
    pub async fn call_typed<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, Fault> {
        self.call(call).await?.read()
    }

    /// Starts a call: a stream of events, then the outcome. Dropping it cancels the call down to the worker.
    pub fn start(&self, call: Call) -> Running {
        let (sender, events) = self.events();
        let host = self.0.clone();
        // Spawn on the host's own runtime: the calling thread may have none.
        let task = self.0.runtime.spawn(async move { run::run(&host, call, sender).await });
        Running { events, outcome: None, task }
    }

    fn events(&self) -> (events::Sender, events::Receiver) {
        events::channel(self.0.limits.events_bytes.unwrap_or(limits::CALL_EVENTS_BYTES_MAX))
    }

    /// Runs a call to its end, and gives each of its events to `on_event`, in order and one at a time. All
    /// events have been given when the outcome is returned.
    ///
    /// `on_event` runs on a thread where it may block. Meanwhile this call counts as one with a slow caller;
    /// nothing else waits. The pod holds back the call's chunks, and of progress only the latest is kept. For
    /// many small chunks [`Host::start`] costs less.
    ///
    /// Dropping the future cancels the call down to the worker; a running `on_event` finishes its event and
    /// gets no more. A panic in `on_event` is a panic of this future, which cancels the call as well.
    ///
    /// ```no_run
    /// use hob::{Call, Fault, Host};
    ///
    /// async fn embed(host: &Host, texts: &[&str]) -> Result<(), Fault> {
    ///     let call = Call::new("hob/sentence-embeddings", "embed", serde_json::json!({ "texts": texts }))?;
    ///     let outcome = host
    ///         .call_with(call, |event| {
    ///             if let Some(report) = event.report() {
    ///                 println!("{report}, {:.0} %", report.share().unwrap_or(0.0) * 100.0); // 32 of 100 texts, 32 %
    ///             }
    ///         })
    ///         .await?;
    ///     println!("done in {:.0} ms", outcome.wall_ms);
    ///     Ok(())
    /// }
    /// ```
    pub async fn call_with(&self, call: Call, mut on_event: impl FnMut(Event) + Send + 'static) -> Result<Outcome, Fault> {
        let mut running = self.start(call);
        while let Some(event) = running.next().await {
            let given = threads::start(move || {
                on_event(event);
                on_event
            });
            let ended = || Fault::new(Code::Internal, "the runtime ended during a call");
            on_event = given?.panicking().await.ok_or_else(ended)?;
        }
        running.outcome().await
    }

    /// The records of the latest calls.
    pub fn journal(&self) -> Vec<Record> {
        self.0.journal.records()
    }

    /// The recipe that a caller's word names: a name, a folder, or a capability that one installed recipe
    /// provides. A recipe given by name or folder need not exist.
    ///
    /// Errors: `usage`, `recipe_not_found` when nothing provides the capability or several recipes do; the
    /// provider's own fault when the provider is damaged.
    pub async fn resolve(&self, word: &str) -> Result<RecipeRef, Fault> {
        self.settled(&word.parse()?).await
    }

    /// Replaces a capability by the recipe that provides it.
    pub(super) async fn settled(&self, recipe: &RecipeRef) -> Result<RecipeRef, Fault> {
        match recipe {
            RecipeRef::Capability(word) => Ok(RecipeRef::Name(self.0.catalogue.provider(&self.0, word).await?)),
            RecipeRef::Name(_) | RecipeRef::Folder(_) => Ok(recipe.clone()),
        }
    }

    /// [`Host::resolve`] for installed recipes only.
    ///
    /// Errors: those of [`Host::resolve`]; `usage` for a folder.
    pub async fn resolve_name(&self, word: &str) -> Result<RecipeName, Fault> {
        match self.resolve(word).await? {
            RecipeRef::Name(name) => Ok(name),
            RecipeRef::Folder(_) | RecipeRef::Capability(_) => word.parse(),
        }
    }
}

/// A running call.
pub struct Running {
    events: events::Receiver,
    task: tokio::task::JoinHandle<Result<Outcome, Fault>>,
    outcome: Option<Result<Outcome, Fault>>,
}

impl Running {
    /// The next event; `None` when only the outcome is left.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// Waits for the outcome; events that were not taken are dropped.
    pub async fn outcome(mut self) -> Result<Outcome, Fault> {
        while self.next().await.is_some() {}
        match self.outcome.take() {
            Some(outcome) => outcome,
            None => joined((&mut self.task).await),
        }
    }

    fn poll_event(&mut self, context: &mut Context) -> Poll<Option<Event>> {
        if self.outcome.is_none()
            && let Poll::Ready(outcome) = Pin::new(&mut self.task).poll(context)
        {
            self.outcome = Some(joined(outcome));
            // No event follows the outcome, but a sender may live on: a pod that is busy with other calls may
            // hold one for long.
            self.events.close();
        }
        self.events.poll_recv(context)
    }
}

fn joined(outcome: Result<Result<Outcome, Fault>, tokio::task::JoinError>) -> Result<Outcome, Fault> {
    outcome.unwrap_or_else(|error| Err(Fault::new(Code::Internal, format!("a call ended early: {error}"))))
}

impl Stream for Running {
    type Item = Event;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(context)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
