//! The lines that pods print: live for a running call, and kept ones from before.

use std::{collections::HashSet, pin::pin};

use super::{Host, HostState};
use crate::{
    model::{Fault, Home, RecipeName, events, limits::LOG_LOOK_BYTES_MAX, status::LogLine},
    pod::{self, Heard, Lines, Missed},
};

/// Waits for `work`, and sends `events` the lines that pods of that recipe print meanwhile, for this call or
/// for none.
pub(super) async fn told<T>(host: &HostState, recipe: &str, events: &events::Sender, work: impl Future<Output = T>) -> T {
    let mut lines = host.pods.printed().follow();
    let mut telling = Telling { recipe, events, left: 0 };
    let mut work = pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(line) = lines.next() => telling.tell(line),
        }
    };
    // Lines printed before the answer are delivered before the outcome.
    host.pods.catch_up(recipe);
    while let Some(line) = lines.next_now() {
        telling.tell(line);
    }
    telling.tell_left();
    done
}

struct Telling<'a> {
    recipe: &'a str,
    events: &'a events::Sender,
    /// Number of lines that found no room and that the caller was not told of yet.
    left: u64,
}

impl Telling<'_> {
    fn tell(&mut self, line: Result<Heard, Missed>) {
        match line {
            Ok(heard) if heard.line.recipe != self.recipe || heard.call.is_some_and(|call| call != self.events.call()) => {}
            Ok(heard) => {
                self.tell_left();
                self.left += u64::from(self.left > 0 || !self.events.printed(heard.line.text.clone()));
            }
            Err(Missed(count)) => self.left += count,
        }
    }

    fn tell_left(&mut self) {
        if self.left > 0 && self.events.printed(format!("[{} lines are left out: too many at once]", self.left)) {
            self.left = 0;
        }
    }
}

/// The last `lines` lines in the files of a home, from the pods of all its hosts, past and present. Oldest
/// first; of one recipe, or of all. Blocking.
///
/// Errors: `io` if the folders of the home cannot be read, such as those of another user.
pub fn past_logs(home: &Home, recipe: Option<&RecipeName>, lines: usize) -> Result<Vec<LogLine>, Fault> {
    let recipe = recipe.map(RecipeName::to_string);
    for folder in [home.logs(), home.dossiers()] {
        match std::fs::read_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::io(format!("reading {}", folder.display()), &error).hint("run as the user whose home it is"));
            }
            _ => {}
        }
    }
    Ok(pod::past_lines(&home.logs(), &home.dossiers(), recipe.as_deref(), lines, &HashSet::new(), u64::MAX))
}

impl Host {
    /// The lines that its pods print from now on.
    pub fn printed(&self) -> Lines {
        self.0.pods.printed().follow()
    }

    /// The last lines that pods printed, oldest first; of one recipe, or of all. For pods that are gone, of
    /// this host and of earlier ones, the lines come from files. Blocking.
    pub fn logs(&self, recipe: Option<&RecipeName>, lines: usize) -> Vec<LogLine> {
        let recipe = recipe.map(RecipeName::to_string);
        let mut all = self.0.pods.logs(lines);
        all.retain(|line| recipe.as_ref().is_none_or(|recipe| line.recipe == *recipe));
        let home = &self.0.home;
        let past = {
            // A pod whose end is being handled is in both lists.
            let live: HashSet<&str> = all.iter().map(|line| line.incarnation.as_str()).collect();
            pod::past_lines(&home.logs(), &home.dossiers(), recipe.as_deref(), lines, &live, LOG_LOOK_BYTES_MAX)
        };
        all.extend(past);
        all.sort_by_key(|line| line.at_ms);
        let surplus = all.len().saturating_sub(lines);
        all.split_off(surplus)
    }
}
