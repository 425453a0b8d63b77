//! The scheduler: coroutines on one thread, of which it lets one go on at a time.
//!
//! What is spawned on a [`Lifecycle`](crate::lifecycle::Lifecycle) of its thread is a coroutine here, and blocking work
//! of the store runs inside the coroutine that asks for it, so there is no other thread that could come first: the same
//! choices make the same run. A connection alone is opened elsewhere, and waited for in place. **Invariant**: time moves (tokio's, which must be paused) only while nobody can go on, or
//! where the test moves it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use generator::{Generator, Gn};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Words of a coroutine's stack; SQLite and a JSON encoder in a debug build fit several times over.
const STACK_WORDS: usize = 64 * 1024;
/// Silence after which nothing more can come: counts are held back for 50 ms at most.
const QUIET: Duration = Duration::from_millis(60);
/// Turns after which the rest is not waited for while somebody is held: who waits for them may ask again for ever.
const HELD_TURNS: usize = 500;

/// Names a coroutine.
pub type TaskId = u64;

/// A wrong variant of the shipped code, which the test must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The log is read first, and then the subscriber attaches.
    ReadThenSubscribe,
    /// What was replayed is sent again where it waits in the queue.
    NoDedupe,
    /// Subscribers are told of a group before it is committed.
    PublishBeforeCommit,
    /// A queue that is full drops what comes, and says nothing.
    QueueDrops,
    /// Of two rows that counts are made of, the one that arrives later stays.
    LastRowWins,
}

/// An operation that was committed.
#[derive(Clone, Copy, Debug)]
pub struct Journaled {
    /// Who asked for it.
    pub by: TaskId,
    /// The operation's type, without its path.
    pub operation: &'static str,
}

thread_local! {
    static SCHEDULER: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

fn shared() -> Option<Rc<Shared>> {
    SCHEDULER.with_borrow(Clone::clone)
}

#[derive(Default)]
struct Shared {
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    last_id: Cell<TaskId>,
    current: Cell<Option<TaskId>>,
    /// Whether points are passed over just now.
    whole: Cell<bool>,
    /// Who stands at one of these stays there.
    held: RefCell<Vec<&'static str>>,
    fault: Cell<Option<Fault>>,
    journal: RefCell<Vec<Journaled>>,
    /// Who went on from where, since the last look.
    trace: RefCell<Vec<(TaskId, &'static str)>>,
    root: Arc<Root>,
}

/// The waker of the scheduler itself.
#[derive(Default)]
struct Root(Mutex<Option<Waker>>);

struct Task {
    name: &'static str,
    coroutine: Generator<'static, (), Stop>,
    flag: Arc<Flag>,
    /// Where it stands; `None` where it waits to be woken.
    at: Option<&'static str>,
}

impl Task {
    fn can_go_on(&self) -> bool {
        self.at.is_some() || self.flag.woken.load(Ordering::Acquire)
    }
}

/// Why a coroutine gave way.
enum Stop {
    Point(&'static str),
    Waits,
    Ended,
}

struct Flag {
    woken: AtomicBool,
    root: Arc<Root>,
}

/// A thread that waits.
struct Parked(std::thread::Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let root = self.root.0.lock().take();
        if let Some(root) = root {
            root.wake();
        }
    }
}

/// Something else may happen here.
pub fn point(name: &'static str) {
    if shared().is_some_and(|shared| shared.current.get().is_some() && !shared.whole.get()) {
        give_way(Stop::Point(name));
    }
}

/// While it lives, points are passed over.
pub struct Whole(Option<Rc<Shared>>);

impl Whole {
    pub fn begin() -> Self {
        let shared = shared();
        if let Some(shared) = &shared {
            shared.whole.set(true);
        }
        Self(shared)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.whole.set(false);
        }
    }
}

/// Lets the scheduler choose who goes on.
#[expect(deprecated, reason = "the other way wants a scope at hand, which code that ships has none of at its points")]
fn give_way(stop: Stop) {
    generator::yield_with(stop);
}

/// The coroutine that runs, where one does.
pub fn current() -> Option<TaskId> {
    shared().and_then(|shared| shared.current.get())
}

/// Whether blocking work is to run where it is asked for.
pub fn is_scheduled() -> bool {
    current().is_some()
}

/// Waits in place for what another thread does: nobody else goes on meanwhile, or who does would depend on how long it
/// takes.
pub fn in_place<F: Future>(work: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parked(std::thread::current())));
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// Whether the code is to be wrong in this way.
pub fn has_fault(fault: Fault) -> bool {
    shared().is_some_and(|shared| shared.fault.get() == Some(fault))
}

/// Notes that what a coroutine asked for is committed.
pub fn journal(by: Option<TaskId>, operation: &'static str) {
    if let (Some(shared), Some(by)) = (shared(), by) {
        let operation = operation.rsplit("::").next().unwrap_or(operation);
        shared.journal.borrow_mut().push(Journaled { by, operation });
    }
}

/// Makes a coroutine of a task that is about to be spawned, where this thread has a scheduler.
pub fn adopt<F>(task: F) -> impl Future<Output = F::Output> + Send
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let adopted = match shared() {
        None => Err(task),
        Some(shared) => {
            let (sender, receiver) = oneshot::channel();
            shared.spawn("core", async move {
                let _ = sender.send(task.await);
            });
            Ok(receiver)
        }
    };
    async move {
        match adopted {
            Err(task) => task.await,
            Ok(receiver) => match receiver.await {
                Ok(output) => output,
                // It is never finished; the test is over.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Shared {
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), root: self.root.clone() });
        let waker = Waker::from(flag.clone());
        let coroutine = Gn::<()>::new_opt(STACK_WORDS, move || {
            let mut task = pin!(task);
            let mut context = Context::from_waker(&waker);
            while task.as_mut().poll(&mut context).is_pending() {
                give_way(Stop::Waits);
            }
            Stop::Ended
        });
        self.tasks.borrow_mut().insert(id, Task { name, coroutine, flag, at: None });
        id
    }

    fn runnable(&self) -> Vec<TaskId> {
        let (tasks, held) = (self.tasks.borrow(), self.held.borrow());
        let free = tasks.iter().filter(|(_, task)| task.can_go_on() && task.at.is_none_or(|at| !held.contains(&at)));
        free.map(|(id, _)| *id).collect()
    }

    fn go_on(&self, id: TaskId) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        self.trace.borrow_mut().push((id, task.at.unwrap_or(task.name)));
        if task.at.is_none() {
            task.flag.woken.store(false, Ordering::Release);
        }
        self.current.set(Some(id));
        let stop = task.coroutine.resume().expect("it has not ended");
        self.current.set(None);
        task.at = match stop {
            Stop::Point(name) => Some(name),
            Stop::Waits => None,
            Stop::Ended => return,
        };
        self.tasks.borrow_mut().insert(id, task);
    }
}

/// The scheduler of this thread, for as long as it lives.
pub struct Scheduler {
    shared: Rc<Shared>,
}

impl Scheduler {
    /// From here on, what this thread spawns on a lifecycle is a coroutine.
    pub fn install() -> Self {
        let shared = Rc::new(Shared::default());
        SCHEDULER.set(Some(shared.clone()));
        Self { shared }
    }

    pub fn make_wrong(&self, fault: Option<Fault>) {
        self.shared.fault.set(fault);
    }

    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> TaskId {
        self.shared.spawn(name, task)
    }

    /// Takes what was committed since the last call.
    pub fn take_journal(&self) -> Vec<Journaled> {
        self.shared.journal.take()
    }

    /// Takes who went on from where since the last call, in words.
    pub fn take_trace(&self) -> String {
        let trace = self.shared.trace.take();
        trace.iter().map(|(id, at)| format!("{id}:{at}")).collect::<Vec<_>>().join(" ")
    }

    /// Lets those who can go on take turns until nobody can and nothing more comes. `choose` picks one of them; where it
    /// picks nobody, time moves by this much instead.
    pub async fn run(&self, mut choose: impl FnMut(&[TaskId]) -> Result<TaskId, Duration>) {
        let mut turns = 0;
        while turns < HELD_TURNS || self.shared.held.borrow().is_empty() {
            turns += 1;
            let runnable = self.shared.runnable();
            if runnable.is_empty() {
                if tokio::time::timeout(QUIET, self.woken()).await.is_err() {
                    return;
                }
                continue;
            }
            match choose(&runnable) {
                Ok(chosen) => self.shared.go_on(chosen),
                Err(span) => tokio::time::advance(span).await,
            }
        }
    }

    /// Lets them take turns in the order in which they were spawned.
    pub async fn settle(&self) {
        self.run(|runnable| Ok(runnable[0])).await;
    }

    /// Whoever comes to this point stays there until [`Scheduler::release`].
    pub fn hold(&self, point: &'static str) {
        self.shared.held.borrow_mut().push(point);
    }

    /// Lets all go on who are held.
    pub fn release(&self) {
        self.shared.held.borrow_mut().clear();
    }

    /// Whether anybody stands at this point.
    pub fn is_anyone_at(&self, point: &'static str) -> bool {
        self.shared.tasks.borrow().values().any(|task| task.at == Some(point))
    }

    async fn woken(&self) {
        std::future::poll_fn(|context| {
            *self.shared.root.0.lock() = Some(context.waker().clone());
            if self.shared.runnable().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        SCHEDULER.set(None);
        // A coroutine that is dropped half-way unwinds its stack, through code that catches panics: it is left instead.
        for task in self.shared.tasks.take().into_values() {
            std::mem::forget(task.coroutine);
        }
    }
}
