//! What a shard tells an operator of itself.
//!
//! Invariants: an answer costs by what it names, not by how many connections there are; nothing of a shard changes by it but what is traced.

use antiphon_engine::seams::{Clock, Files, Random};

use super::{
    super::enquiry::{Answer, BUSIEST_MAX, Question, SessionAt, Waiting},
    ShardCore,
};

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// Answers an operator's question.
    pub fn enquire(&mut self, question: Question) -> Answer {
        let now_ms = self.now_ms;
        match question {
            Question::Busiest => {
                let lanes = self.lanes.iter_mut();
                Answer::Busiest(lanes.map(|lane| (lane.id(), lane.busiest(now_ms, BUSIEST_MAX))).collect())
            }
            Question::Slow => Answer::Slow(self.slow_connections()),
            Question::Sessions(user) => {
                let home = self.view.config.placement.home_of(&user);
                let routes =
                    self.lanes.iter().find(|lane| lane.id() == home).map_or(&[][..], |lane| lane.routes(&user));
                let at = routes.iter().map(|route| SessionAt {
                    device: route.device.clone(),
                    shard: route.shard,
                    connection: route.connection,
                });
                Answer::Sessions(at.collect())
            }
            Question::Waiting(connections) => {
                let of = connections.into_iter().map(|connection| {
                    let connection = self.connection(connection.into())?;
                    let bytes = connection.outbound.bytes() as u64;
                    Some(Waiting { bytes, heard_ms_ago: now_ms.saturating_sub(connection.heard_at_ms) })
                });
                Answer::Waiting(of.collect())
            }
            Question::Trace { number, user, connections } => Answer::Trace(self.trace(number, user, connections)),
            Question::TakeTrace(number) => Answer::TakeTrace(self.traces.take(number, now_ms)),
            Question::EndTrace(number) => {
                self.traces.end(number);
                Answer::EndTrace
            }
        }
    }
}
