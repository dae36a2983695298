//! A scrape: the counts of all requests, and the current values of gauges.

use std::time::Duration;

use super::{
    Gateway, Upstream,
    metrics::{Description, Exposition},
};
use crate::{policy::health::HealthState, tick::Tick};

impl Gateway {
    /// Returns all metrics in Prometheus' text format.
    pub fn scrape(&self) -> String {
        let mut exposition = Exposition::default();
        self.metrics.expose(&[], &mut exposition);
        for (name, metrics) in self.runtime.group_metrics() {
            metrics.expose(&[("group", &name)], &mut exposition);
        }
        for state in self.runtime.upstream_states() {
            let labels = &[("upstream", &*state.name)];
            state.metrics.expose(labels, &mut exposition);
            let help = "Requests that an upstream is working on.";
            let family = Description::new("in_flight_requests", help);
            exposition.gauge(family, labels, f64::from(state.in_flight()));
        }
        let now = self.clock.now();
        for upstream in self.snapshot().upstreams() {
            expose_health(upstream, now, &mut exposition);
        }
        self.expose_shed(&mut exposition);
        self.expose_levels(&mut exposition);
        exposition.into_text()
    }

    fn expose_shed(&self, exposition: &mut Exposition) {
        let help = "Idle connections to the public and the admin listeners that were closed for new clients.";
        let family = Description::new("client_connections_shed_total", help);
        let shed = self.connections.shed() + self.admin_connections.shed();
        exposition.counter(family, &[], shed);
    }

    fn expose_levels(&self, exposition: &mut Exposition) {
        let version = &[("version", env!("CARGO_PKG_VERSION"))];
        let build_info = Description::new("build_info", "Always 1; the version is a label.");
        exposition.gauge(build_info, version, 1.0);
        let mut level = |name, help, value: usize| exposition.gauge(Description::new(name, help), &[], value as f64);
        level(
            "pins",
            "Sessions that are pinned to an upstream.",
            self.runtime.pins.len(),
        );
        level("connections", "Open client connections.", self.connections.open());
        level(
            "buffered_bytes",
            "Bytes of request bodies held in memory.",
            self.buffered_bytes(),
        );
        level(
            "waiting_requests",
            "Requests that wait for an upstream to take them.",
            self.runtime.waiting(),
        );
    }
}

/// Upstreams that are no longer configured are not shown: they receive no requests, so that their health has no meaning.
fn expose_health(upstream: &Upstream, now: Tick, exposition: &mut Exposition) {
    let status = upstream.state.status();
    let help = "1 for the state that an upstream is in, 0 for the others.";
    let family = Description::new("upstream_state", help);
    for state in HealthState::ALL {
        let labels = [("upstream", &*upstream.name), ("state", state.label())];
        exposition.gauge(family, &labels, f64::from(u8::from(state == status.state)));
    }
    let help = "Seconds until an upstream takes requests, or a probe, again.";
    let family = Description::new("upstream_cooldown_seconds", help);
    let cooldown = status.until.map_or(Duration::ZERO, |until| until.since(now));
    exposition.gauge(family, &[("upstream", &*upstream.name)], cooldown.as_secs_f64());
}
