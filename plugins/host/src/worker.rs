//! Threads that do long work one step at a time, behind a bounded queue.
//!
//! A task that returns itself from a step goes to the back of the queue, beyond the bound: it was admitted once. So a task with many
//! slow steps shares the threads with everyone else. Threads end when the [`Workers`] are dropped; tasks that still wait are dropped
//! with the queue, which their callers see as a closed reply channel.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use wasmtime::Engine;

use crate::{HostError, engine::THREAD_STACK_BYTES};

/// Work in steps.
pub(crate) trait Task: Send {
    /// Does one step; returns itself if there is more to do.
    fn step(self: Box<Self>) -> Option<Box<dyn Task>>;
}

/// A task of one step.
pub(crate) struct Once<F>(pub(crate) F);

impl<F: FnOnce() + Send> Task for Once<F> {
    fn step(self: Box<Self>) -> Option<Box<dyn Task>> {
        (self.0)();
        None
    }
}

/// The queue is full, or the host is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// A pool of threads.
pub(crate) struct Workers {
    queue: Arc<Queue>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    tasks_max: usize,
}

struct Waiting {
    tasks: VecDeque<Box<dyn Task>>,
    closed: bool,
}

impl Workers {
    /// Starts `threads` threads named `name`, with at most `tasks_max` tasks waiting.
    pub(crate) fn start(name: &str, threads: usize, tasks_max: usize) -> Result<Self, HostError> {
        let waiting = Mutex::new(Waiting {
            tasks: VecDeque::new(),
            closed: false,
        });
        let workers = Self {
            queue: Arc::new(Queue {
                waiting,
                changed: Condvar::new(),
                tasks_max,
            }),
        };
        for index in 0..threads.max(1) {
            let (queue, name) = (workers.queue.clone(), format!("{name}-{index}"));
            thread::Builder::new()
                .name(name.clone())
                .stack_size(THREAD_STACK_BYTES)
                .spawn(move || queue.work())
                .map_err(|source| HostError::Thread { name, source })?;
        }
        Ok(workers)
    }

    /// Queues a task. A task that is refused is dropped.
    pub(crate) fn submit(&self, task: Box<dyn Task>) -> Result<(), QueueFull> {
        let mut waiting = self.queue.lock();
        if waiting.closed || waiting.tasks.len() >= self.queue.tasks_max {
            return Err(QueueFull);
        }
        waiting.tasks.push_back(task);
        drop(waiting);
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.closed = true;
        let abandoned = std::mem::take(&mut waiting.tasks);
        drop(waiting);
        self.queue.changed.notify_all();
        drop(abandoned);
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        Engine::tls_eager_initialize();
        let mut unfinished = None;
        while let Some(task) = self.next(unfinished.take()) {
            unfinished = task.step();
        }
    }

    /// Puts an unfinished task back and waits for the next; `None` once the queue is closed.
    fn next(&self, unfinished: Option<Box<dyn Task>>) -> Option<Box<dyn Task>> {
        let mut waiting = self.lock();
        if let Some(task) = unfinished.filter(|_| !waiting.closed) {
            waiting.tasks.push_back(task);
        }
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(task) = waiting.tasks.pop_front() {
                return Some(task);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn queue_refuses_the_task_beyond_its_bound() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let (entered_sender, entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let blocker = Once(move || {
            entered_sender.send(()).unwrap();
            released.recv().unwrap();
        });
        workers.submit(Box::new(blocker)).unwrap();
        entered.recv().unwrap();
        assert_eq!(workers.submit(Box::new(Once(|| ()))), Ok(()));
        assert_eq!(workers.submit(Box::new(Once(|| ()))), Err(QueueFull));
        release.send(()).unwrap();
    }

    struct Counting(u32, mpsc::Sender<u32>);

    impl Task for Counting {
        fn step(mut self: Box<Self>) -> Option<Box<dyn Task>> {
            self.0 += 1;
            self.1.send(self.0).unwrap();
            (self.0 < 3).then_some(self as Box<dyn Task>)
        }
    }

    #[test]
    fn unfinished_tasks_are_stepped_until_they_are_done() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let (sender, steps) = mpsc::channel();
        workers.submit(Box::new(Counting(0, sender))).unwrap();
        assert_eq!(steps.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
