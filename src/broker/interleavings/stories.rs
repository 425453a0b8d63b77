//! Orders that once showed a fault, each held until the moment that matters.

use std::future::Future;

use super::*;

const TALLIES_READ: &str = "tallies read, not loaded";
const READ_AGAIN: &str = "read again, not loaded";
const FANNED_OUT: &str = "a change is fanned out";
const READ: &str = "read, not kept";

/// A device that a story opens and closes at its own moments.
struct Open {
    phase: watch::Sender<Phase>,
    reading: Reading,
}

impl Case {
    async fn begin() -> Self {
        let devices = HOLDERS.map(|user| DevicePlan {
            user,
            token: EVERYTHING,
            events: Wants::Everything,
            category: None,
            topics: None,
        });
        let keep = Keep { hours: None, per_user: None, of_loans: None, per_topic: Some(1) };
        let setting = Setting { keep, queue_frames: 256, feed: 64, replays: 32, max_age: None };
        let case = Self::open_with(Dice(1), devices, setting, None).await;
        case.unwrap_or_else(|told| panic!("{told}"))
    }

    async fn happens(&mut self, act: Act) {
        self.alone(act).await.unwrap_or_else(|told| panic!("{told}"));
    }

    async fn to(&mut self, to: To) {
        self.titles += 1;
        let title = format!("n{}", self.titles);
        let sending = Sending { to, category: None, title, collapse: None, deliver: None, expiry: None };
        self.happens(Act::Publish(sending)).await;
    }

    /// Begins to open a device, as far as nobody is held.
    async fn opens(&mut self, device: usize) -> Open {
        let (how, snapshot) = (How::Resume, 15);
        let opened = self.devices[device].dial(&self.broker, how, snapshot, self.world.head);
        let opened = opened.unwrap_or_else(|told| panic!("{told}"));
        let conduct = Conduct { dialled: Some((how, snapshot)), items: usize::MAX, cut_after: None };
        let ((phase, phases), slot) = (watch::channel(Phase::Read), Arc::new(Mutex::new(None)));
        let task = self.scheduler.spawn("device", read(opened, conduct, phases, slot.clone()));
        self.scheduler.settle().await;
        Open { phase, reading: Reading { device, conduct, task, read: slot } }
    }

    /// Everything that was due has come: looks whether it is right, and closes the device.
    async fn closes(&mut self, open: Open) {
        open.phase.send_replace(Phase::Over);
        self.scheduler.settle().await;
        let (device, read) = (open.reading.device, open.reading.read.clone());
        self.judge(open.reading, None).await.unwrap_or_else(|told| panic!("{told}"));
        drop(read);
        if let Some(mut lent) = self.devices[device].lend() {
            self.scheduler.spawn("device", async move { drop(lent.unplug()) });
        }
        self.scheduler.settle().await;
        self.devices[device].cut(&self.world).unwrap_or_else(|told| panic!("{told}"));
    }

    async fn ends(self) {
        self.close().await.unwrap_or_else(|told| panic!("{told}"));
    }
}

fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(tokio::task::unconstrained(story));
}

#[test]
fn a_topic_that_is_deleted_while_its_followers_first_device_opens_counts_no_more() {
    // Rows that were read before the deletion, and loaded after they had been read again, brought it back.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        case.to(To::Users(vec!["bob"])).await;
        case.scheduler.hold(TALLIES_READ);
        let device = case.opens(2).await;
        assert!(case.scheduler.is_anyone_at(TALLIES_READ), "nobody was held");
        case.happens(Act::DeleteTopic("ops")).await;
        case.to(To::Users(vec!["bob"])).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.to(To::Users(vec!["bob"])).await;
        case.closes(device).await;
        case.ends().await;
    });
}

#[test]
fn a_topic_that_is_deleted_while_another_device_opens_counts_no_more() {
    // The second device's rows brought back what the first one's had been told to let go of.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        let first = case.opens(0).await;
        case.scheduler.hold(TALLIES_READ);
        let second = case.opens(1).await;
        assert!(case.scheduler.is_anyone_at(TALLIES_READ), "nobody was held");
        case.happens(Act::DeleteTopic("ops")).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.to(To::Users(vec!["ann"])).await;
        case.closes(first).await;
        case.closes(second).await;
        case.ends().await;
    });
}

#[test]
fn rows_that_are_read_again_outlive_the_last_device_that_they_were_read_for() {
    // They were loaded for the next device, without what had been published while there was none.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        case.to(To::Topic("ops")).await;
        let first = case.opens(2).await;
        case.scheduler.hold(READ_AGAIN);
        let newest = *case.world.ids().last().expect("two were published");
        case.happens(Act::Retract(newest)).await;
        assert!(case.scheduler.is_anyone_at(READ_AGAIN), "nobody was held");
        // The badge is right once the rows are; nobody waits for it here.
        first.phase.send_replace(Phase::Over);
        case.scheduler.settle().await;
        let mut left = first.reading.read.lock().take().expect("it has ended");
        case.scheduler.spawn("device", async move { drop(left.unplug()) });
        case.scheduler.settle().await;
        case.to(To::Users(vec!["bob"])).await;
        case.scheduler.hold(TALLIES_READ);
        let second = case.opens(2).await;
        assert!(case.scheduler.is_anyone_at(TALLIES_READ), "nobody was held");
        case.scheduler.release();
        case.scheduler.hold(TALLIES_READ);
        case.scheduler.settle().await;
        case.to(To::Topic("ops")).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.closes(second).await;
        case.ends().await;
    });
}

#[test]
fn a_deletion_that_another_device_reads_before_it_is_fanned_out_is_told_to_the_first() {
    // The second device's read took the rows that said who was to be told.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        let first = case.opens(0).await;
        case.scheduler.hold(FANNED_OUT);
        case.happens(Act::DeleteTopic("ops")).await;
        assert!(case.scheduler.is_anyone_at(FANNED_OUT), "nobody was held");
        let second = case.opens(1).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.closes(first).await;
        case.closes(second).await;
        case.ends().await;
    });
}

#[test]
fn a_deletion_while_the_first_device_opens_is_told_without_another_commit() {
    // Nobody was known to hold rows of the topic yet.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        case.scheduler.hold(TALLIES_READ);
        let device = case.opens(2).await;
        assert!(case.scheduler.is_anyone_at(TALLIES_READ), "nobody was held");
        case.happens(Act::DeleteTopic("ops")).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.closes(device).await;
        case.ends().await;
    });
}

#[test]
fn a_follow_of_the_past_that_was_gone_when_it_was_read_does_not_come_back() {
    // The feed brought it back from before the read, and the read was later than all that would have counted it anew.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        let first = case.opens(0).await;
        case.scheduler.hold(FANNED_OUT);
        case.happens(Act::Unfollow { topic: "ops", user: "ann" }).await;
        case.to(To::Topic("ops")).await;
        case.happens(Act::Retain).await;
        assert!(case.scheduler.is_anyone_at(FANNED_OUT), "nobody was held");
        let second = case.opens(1).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.closes(first).await;
        case.closes(second).await;
        case.ends().await;
    });
}

#[test]
fn what_was_read_before_an_erasure_is_not_kept_behind_it() {
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Users(vec!["cy"])).await;
        case.to(To::Topic("ops")).await;
        let seq = Seq(case.world.head);
        case.scheduler.hold(READ);
        let reader = case.opens(0).await;
        assert!(case.scheduler.is_anyone_at(READ), "nobody was held");
        case.happens(Act::Erase("cy")).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        assert!(case.broker.inner.newest.sharing().known(seq).is_none(), "it is from before the erasure");
        case.closes(reader).await;
        let later = case.opens(2).await;
        assert!(case.broker.inner.newest.sharing().known(seq).is_some(), "it was not kept");
        case.closes(later).await;
        case.ends().await;
    });
}

#[test]
fn a_topic_that_its_last_follower_leaves_while_the_next_is_read_counts_on() {
    // The total that the feed had brought went with the one who left, and an older one came with what was read.
    tell(async {
        let mut case = Case::begin().await;
        case.to(To::Topic("ops")).await;
        let first = case.opens(0).await;
        case.scheduler.hold(TALLIES_READ);
        let second = case.opens(2).await;
        assert!(case.scheduler.is_anyone_at(TALLIES_READ), "nobody was held");
        case.to(To::Topic("ops")).await;
        case.closes(first).await;
        case.scheduler.release();
        case.scheduler.settle().await;
        case.closes(second).await;
        case.ends().await;
    });
}
