//! The host's implementation of each import of the world.
//!
//! Each import counts itself first. A fault on which the guest can act is returned to it. A fault that ends
//! the run (a cap, a caller that is gone) is an error, which wasmtime carries past the guest as a trap.

use wasmtime::component::Resource;

use crate::{
    glue::{
        caps::limit,
        handles::{Builder, HeldBlob, OpenAsk},
        pods::AskEvent,
        run::Run,
        world::hob::glue::{blobs, faults, log, output, pod},
    },
    model::{Blame, Blob, Code, Document, Fault, act, events, hint, limits},
};

/// The inner `Err` goes to the guest; the outer `Err` ends the run.
type Given<T> = wasmtime::Result<Result<T, faults::Fault>>;

const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

impl faults::Host for Run {}

impl log::Host for Run {
    fn write(&mut self, level: String, mut message: String) -> wasmtime::Result<()> {
        self.enter()?;
        if self.crossings.log_lines == limits::GLUE_LOG_LINES_MAX as u64 {
            self.crossings.log_lines_dropped += 1;
            return Ok(());
        }
        self.crossings.log_lines += 1;
        message.truncate(message.floor_char_boundary(limits::GLUE_LOG_LINE_BYTES_MAX));
        let level = if LEVELS.contains(&level.as_str()) { level } else { "info".to_owned() };
        if self.log_tail.len() == limits::FAULT_TAIL_LINES {
            self.log_tail.pop_front();
        }
        self.log_tail.push_back(format!("{level}: {message}"));
        // A log line never waits: a slow caller loses lines, not time.
        if !self.events.log(level, message) {
            self.crossings.log_lines_dropped += 1;
        }
        Ok(())
    }
}

impl blobs::Host for Run {}

impl blobs::HostBlob for Run {
    fn media_type(&mut self, blob: Resource<HeldBlob>) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.table.get(&blob)?.blob.media_type.clone())
    }

    fn size(&mut self, blob: Resource<HeldBlob>) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.table.get(&blob)?.blob.size())
    }

    fn read(&mut self, blob: Resource<HeldBlob>, offset: u64, length: u32) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        let blob = &self.table.get(&blob)?.blob;
        let start = offset.min(blob.size());
        let length = u64::from(length).min(blob.size() - start).min(limits::GLUE_HOSTCALL_BYTES_MAX as u64);
        let mut bytes = vec![0; length as usize];
        blob.read_exact_at(start, &mut bytes)?;
        Ok(bytes)
    }

    fn drop(&mut self, blob: Resource<HeldBlob>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(blob)?;
        Ok(())
    }
}

impl blobs::HostBuilder for Run {
    fn new(&mut self, media_type: String) -> wasmtime::Result<Resource<Builder>> {
        self.enter()?;
        self.builder(media_type)
    }

    fn write(&mut self, builder: Resource<Builder>, bytes: Vec<u8>) -> Given<()> {
        self.enter()?;
        self.append(&builder, &bytes)
    }

    fn finish(&mut self, builder: Resource<Builder>) -> wasmtime::Result<Resource<HeldBlob>> {
        self.enter()?;
        Run::finish(self, builder)
    }

    fn drop(&mut self, builder: Resource<Builder>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(builder)?;
        Ok(())
    }
}

impl pod::Host for Run {
    async fn start(&mut self, operation: String, arguments: String, blobs: Vec<blobs::Named>) -> Given<Resource<OpenAsk>> {
        self.enter()?;
        if self.asks_open == limits::GLUE_ASKS_MAX {
            return Err(limit(&self.manifest, "asks", None, limits::GLUE_ASKS_MAX, "open at once").into());
        }
        let blobs = self.take(blobs)?;
        let checked = self.manifest.operation(&operation).map(drop).and_then(|()| Document::parse(arguments, "arguments of an ask"));
        let (blobs, arguments) = match (blobs, checked) {
            (Ok(blobs), Ok(arguments)) => (blobs, arguments),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(self.give(fault.of_recipe()))),
        };
        let ticks = self.ticks();
        let started = self.pods.start(&operation, arguments, blobs).await;
        self.waited_since(ticks);
        match started {
            Err(fault) => Ok(Err(self.give(fault))),
            Ok(ask) => {
                let handle = self.push(OpenAsk(Some(ask)))?;
                self.asks_open += 1;
                self.crossings.asks += 1;
                Ok(Ok(handle))
            }
        }
    }
}

impl pod::HostCall for Run {
    async fn next(&mut self, call: Resource<OpenAsk>) -> Given<Option<pod::Event>> {
        self.enter()?;
        let ticks = self.ticks();
        let next = match &mut self.table.get_mut(&call)?.0 {
            None => return Ok(Ok(None)),
            Some(ask) => ask.next().await,
        };
        self.waited_since(ticks);
        if !matches!(next, Ok(Some(AskEvent::Chunk { .. }))) {
            // The end: what the ask holds at the pod is released now, not when the guest drops its handle.
            self.table.get_mut(&call)?.0 = None;
            self.asks_open -= 1;
        }
        match next {
            Err(fault) => Ok(Err(self.give(fault))),
            Ok(None) => Ok(Ok(None)),
            Ok(Some(AskEvent::Chunk { data, blobs })) => Ok(Ok(Some(self.event("chunk", data, blobs)?))),
            Ok(Some(AskEvent::Answer { data, blobs })) => Ok(Ok(Some(self.event("answer", data, blobs)?))),
        }
    }

    fn drop(&mut self, call: Resource<OpenAsk>) -> wasmtime::Result<()> {
        self.enter()?;
        let mut ask = self.table.delete(call)?;
        self.close(&mut ask);
        Ok(())
    }
}

impl output::Host for Run {
    async fn emit(&mut self, data: String, blobs: Vec<blobs::Named>) -> Given<()> {
        self.enter()?;
        let blobs = self.take(blobs)?;
        let (data, blobs) = match (Document::unread(data, "a chunk"), blobs) {
            (Ok(data), Ok(blobs)) => (data, blobs),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(self.give(fault.of_recipe()))),
        };
        let ticks = self.ticks();
        self.send(data, blobs).await?;
        self.waited_since(ticks);
        Ok(Ok(()))
    }

    async fn forward(&mut self, call: Resource<OpenAsk>) -> Given<pod::Event> {
        self.enter()?;
        let mut ask = self.table.delete(call)?;
        let ticks = self.ticks();
        let end = match &mut ask.0 {
            None => Err(Fault::new(Code::RecipeFailed, "glue forwards an ask that already gave its answer")),
            Some(ask) => loop {
                match ask.next().await {
                    Ok(Some(AskEvent::Chunk { data, blobs })) => self.send(data, blobs).await?,
                    Ok(Some(AskEvent::Answer { data, blobs })) => break Ok((data, blobs)),
                    Ok(None) => break Err(Fault::new(Code::RecipeFailed, "glue forwards an ask that ended without an answer")),
                    Err(fault) => break Err(fault),
                }
            },
        };
        self.waited_since(ticks);
        self.close(&mut ask);
        match end {
            Err(fault) => Ok(Err(self.give(fault))),
            Ok((data, blobs)) => Ok(Ok(self.event("answer", data, blobs)?)),
        }
    }
}

impl Run {
    fn event(&mut self, kind: &str, data: Document, blobs: Vec<Blob>) -> wasmtime::Result<pod::Event> {
        let blobs = blobs.into_iter().map(|blob| self.hold(blob)).collect::<wasmtime::Result<_>>()?;
        Ok(pod::Event { kind: kind.to_owned(), data: data.into_text(), blobs })
    }

    /// Sends a chunk to the caller, and waits while the caller is slow.
    async fn send(&mut self, data: Document, blobs: Vec<Blob>) -> wasmtime::Result<()> {
        if !self.operation.streaming {
            let (name, operation) = (&self.manifest.name, &self.operation.name);
            let message = format!("the glue of `{name}` sends a chunk, but its operation `{operation}` is not a streaming one");
            return Err(Fault::new(Code::ProtocolViolation, message)
                .blame(Blame::Recipe)
                .hint(hint!["write ", act::streaming(operation)])
                .into());
        }
        self.crossings.chunks += 1;
        match self.events.chunk(data, blobs).await {
            Ok(()) => Ok(()),
            Err(events::Gone) => Err(Fault::new(Code::Cancelled, "the caller went away while chunks were still coming").into()),
        }
    }
}
