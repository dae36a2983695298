//! The maximum number of upstreams that are ejected at the same time.

use crate::endpoint::EndpointClass;

/// Bounds how many upstreams of a pool are ejected at the same time, for each class of endpoints.
///
/// When many upstreams of a pool fail together, the cause is often outside of them: the network, or the requests. If all
/// of them were ejected, no request would be served, although most requests might be. So at most a share of the pool is
/// ejected. (Envoy calls this share `max_ejection_percent`.)
#[derive(Clone, Debug)]
pub struct EjectionCap {
    /// The maximum number of ejected upstreams, for each class.
    most: usize,
    /// The number of ejected upstreams, for each class in the order of its discriminant. It is over `most` if a reload has
    /// lowered that.
    ejected: [usize; EndpointClass::COUNT],
}

impl EjectionCap {
    /// The bound for a pool of `upstreams` upstreams. See [`EjectionCap::resize`].
    pub fn new(upstreams: usize, share: f64) -> Self {
        let mut cap = Self {
            most: 0,
            ejected: [0; EndpointClass::COUNT],
        };
        cap.resize(upstreams, share);
        cap
    }

    /// Changes the pool. At most `share` (0 to 1) of its upstreams are ejected, rounded down, but at least one of two or
    /// more, unless `share` is 0. Upstreams that are ejected already stay so.
    pub fn resize(&mut self, upstreams: usize, share: f64) {
        // 0.29 of 100 upstreams are 29, although the product is slightly smaller as a floating point number.
        let part = (upstreams as f64 * share + 1e-9) as usize;
        let least = usize::from(upstreams >= 2 && share > 0.0);
        self.most = part.max(least).min(upstreams);
    }

    /// The maximum number of upstreams that are ejected at the same time, for each class.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The number of upstreams that are ejected for `class`.
    pub fn ejected(&self, class: EndpointClass) -> usize {
        self.ejected[class as usize]
    }

    /// Counts one more ejected upstream, if there may be one. Returns whether there may.
    pub fn try_take(&mut self, class: EndpointClass) -> bool {
        let may_eject = self.ejected(class) < self.most;
        if may_eject {
            self.take(class);
        }
        may_eject
    }

    /// Counts an upstream that is ejected already, because it has joined the pool.
    pub fn take(&mut self, class: EndpointClass) {
        self.ejected[class as usize] += 1;
    }

    /// Counts one ejected upstream less, because its ejection has ended or it has left the pool.
    pub fn give_back(&mut self, class: EndpointClass) {
        let ejected = &mut self.ejected[class as usize];
        *ejected = ejected.checked_sub(1).expect("each ejection is counted once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_pool_is_ejected_but_one_of_two_at_least_and_never_the_last_one() {
        for (upstreams, share, most) in [
            (0, 0.5, 0),
            (1, 0.0, 0),
            (1, 0.5, 0),
            (1, 0.99, 0),
            (1, 1.0, 1),
            (2, 0.0, 0),
            (2, 0.01, 1),
            (2, 0.5, 1),
            (2, 0.99, 1),
            (2, 1.0, 2),
            (3, 0.5, 1),
            (4, 0.5, 2),
            (6, 0.5, 3),
            (10, 0.05, 1),
            (10, 0.3, 3),
            (10, 0.95, 9),
            (100, 0.29, 29),
            (10, 1.0, 10),
        ] {
            assert_eq!(
                EjectionCap::new(upstreams, share).most(),
                most,
                "{share} of {upstreams}"
            );
        }
    }

    #[test]
    fn places_are_counted_for_each_class() {
        let mut cap = EjectionCap::new(4, 0.5);
        let (generation, images) = (EndpointClass::Generation, EndpointClass::Images);
        assert!(cap.try_take(generation) && cap.try_take(generation) && !cap.try_take(generation));
        assert!(cap.try_take(images));
        cap.give_back(generation);
        assert!(cap.try_take(generation) && !cap.try_take(generation));
        cap.take(generation);
        cap.give_back(generation);
        assert!(
            !cap.try_take(generation),
            "one more than the maximum was ejected before"
        );
        cap.resize(6, 0.5);
        assert!(cap.try_take(generation) && !cap.try_take(generation));
        assert_eq!((cap.ejected(generation), cap.ejected(images)), (3, 1));
    }
}
