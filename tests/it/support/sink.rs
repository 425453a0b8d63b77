//! `tidings sink` as the other side of DingTalk's robots, killed when dropped.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::server::tidings;
use super::{DEADLINE, wait_for};

/// A sink that runs.
pub struct Sink {
    child: Child,
    /// What a robot posts to; its `access_token` is the robot's name here.
    pub url: String,
    messages: Receiver<Value>,
}

impl Sink {
    pub fn start(args: &[&str]) -> Self {
        let mut command = tidings();
        command.args(["sink", "--json", "--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let message: Value = serde_json::from_str(&line).expect("every line is JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let ready: Value = messages.recv_timeout(DEADLINE).expect("it listens");
        let url = ready["dingtalk"].as_str().expect("an address").to_owned();
        Self { child, url, messages }
    }

    /// The next message.
    pub fn next(&self) -> Value {
        self.next_within(DEADLINE)
    }

    /// The next message, where a robot may have to wait for its minute.
    pub fn next_within(&self, patience: Duration) -> Value {
        self.messages.recv_timeout(patience).expect("a message comes")
    }

    /// Stops it where it is: it is connected to, and answers nothing.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
    }

    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it runs");
    }

    /// Ctrl-C; its exit code, what it still printed and what it said besides.
    pub fn stop(mut self) -> (i32, Vec<Value>, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let status = wait_for("the end of the sink", || self.child.try_wait().expect("it is ours"));
        let mut told = String::new();
        let mut stderr = self.child.stderr.take().expect("standard error is piped");
        stderr.read_to_string(&mut told).expect("UTF-8");
        (status.code().expect("it was not killed"), self.messages.iter().collect(), told)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
