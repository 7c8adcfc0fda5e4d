//! [`Doors`]: as many connections to libvirt as are asked at the same time, each used again.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::door::{Door, DoorError};
use crate::libvirt::{Answer, Ask, RefusalKind, SYSTEM};

/// How many questions wait for libvirt at the same time. Each takes a process and a client of libvirt's.
const MOST: usize = 8;

/// Connections to the system's libvirt. None is opened before something is asked.
#[derive(Debug)]
pub struct Doors {
    idle: Mutex<Vec<Door>>,
    slots: Semaphore,
}

impl Default for Doors {
    fn default() -> Self {
        Self { idle: Mutex::default(), slots: Semaphore::new(MOST) }
    }
}

impl Doors {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// libvirt's refusal, or what kept its answer from coming.
    pub fn ask_now(&self, ask: &Ask) -> Result<Answer, DoorError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(door) => match self.through(door, ask) {
                // libvirt was started again since it was opened.
                Err(error) if is_closed(&error) => self.through(Door::open(SYSTEM)?, ask),
                answer => answer,
            },
            None => self.through(Door::open(SYSTEM)?, ask),
        }
    }

    fn through(&self, mut door: Door, ask: &Ask) -> Result<Answer, DoorError> {
        let answer = door.ask(ask);
        let is_of_use = match &answer {
            Ok(_) => true,
            Err(error) => matches!(error, DoorError::Refused(_)) && !is_closed(error),
        };
        if is_of_use {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(door);
        }
        answer
    }

    /// Asks on a thread of its own.
    ///
    /// # Errors
    /// As [`Doors::ask_now`].
    pub async fn ask(self: &Arc<Self>, ask: Ask) -> Result<Answer, DoorError> {
        // It is never closed.
        let _slot = self.slots.acquire().await;
        let doors = Arc::clone(self);
        match tokio::task::spawn_blocking(move || doors.ask_now(&ask)).await {
            Ok(answer) => answer,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => Err(DoorError::Broken { said: cancelled.to_string() }),
            },
        }
    }
}

fn is_closed(error: &DoorError) -> bool {
    matches!(error, DoorError::Broken { .. }) || error.refusal() == Some(RefusalKind::NoDaemon)
}
