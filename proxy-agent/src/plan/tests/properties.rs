//! Whatever is edited in whatever order: no look-up ever finds less than a whole service, and what stands in the end is what
//! a fresh start would have written.

use proptest::prelude::*;

use super::{
    machine::Machine,
    naive,
    world::{self, Step, World},
    *,
};

/// An agent with its maps and its clock.
struct Agent {
    now: Instant,
    machine: Machine,
    planner: Planner,
    node: NodeAddresses,
    world: World,
}

impl Agent {
    fn new() -> Self {
        let now = Instant::now();
        let node = NodeAddresses::default();
        let mut planner = Planner::new(LIMITS, ROOM, HZ, node.clone(), &Image::default(), now);
        assert_eq!(planner.sync(now, Vec::<Change>::new()).ops, []);
        Self {
            now,
            machine: Machine::default(),
            planner,
            node,
            world: World::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Edit(services) => {
                let before = world::resolve(&self.world);
                self.world.extend(services);
                let after = world::resolve(&self.world);
                let changes: Vec<Change> = after
                    .into_iter()
                    .filter(|(name, desired)| before.get(name) != Some(desired))
                    .collect();
                let plan = self.planner.update(self.now, &changes);
                self.machine.apply(&plan.ops)
            }
            Step::Node(node) => {
                self.node = node.clone();
                let plan = self.planner.set_node(node);
                self.machine.apply(&plan.ops)
            }
            Step::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                let ops = self.planner.advance(self.now);
                self.machine.apply(&ops)
            }
            Step::Restart(share) => self.restart(share),
            Step::Lose(lost) => {
                for lost in lost {
                    lost.from(&mut self.machine.image);
                }
                self.restart_over_losses()
            }
        }
    }

    /// No program looks at the maps before all is written.
    fn restart_over_losses(&mut self) -> Result<(), String> {
        let image = self.machine.image.clone();
        self.planner = Planner::new(LIMITS, ROOM, HZ, self.node.clone(), &image, self.now);
        let all: Vec<Change> = world::resolve(&self.world).into_iter().collect();
        let ops = self.planner.sync(self.now, &all).ops;
        self.machine.apply_unseen(&ops)
    }

    /// The process ends in the middle of its writes, and the next one starts from what it finds.
    fn restart(&mut self, share: usize) -> Result<(), String> {
        for share in [share, 100] {
            let image = self.machine.image.clone();
            self.planner = Planner::new(LIMITS, ROOM, HZ, self.node.clone(), &image, self.now);
            let all: Vec<Change> = world::resolve(&self.world).into_iter().collect();
            let ops = self.planner.sync(self.now, &all).ops;
            self.machine.apply(&ops[..ops.len() * share / 100])?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_look_up_finds_less_than_a_whole_service_and_the_end_is_that_of_a_fresh_start(steps in world::steps()) {
        let mut agent = Agent::new();
        for step in steps {
            agent.step(step).map_err(TestCaseError::fail)?;
        }
        agent.step(Step::Wait(SETTLED.as_millis() as u64)).map_err(TestCaseError::fail)?;
        let resolved = world::resolve(&agent.world);
        let expected = naive::expect(resolved.values().flatten(), &agent.node);
        prop_assert_eq!(naive::read(&agent.machine.image), expected);
        prop_assert_eq!(naive::strays(&agent.machine.image), 0);
    }

    #[test]
    fn what_is_desired_already_needs_no_write(steps in world::steps()) {
        let mut agent = Agent::new();
        for step in steps {
            agent.step(step).map_err(TestCaseError::fail)?;
        }
        let all: Vec<Change> = world::resolve(&agent.world).into_iter().collect();
        prop_assert_eq!(agent.planner.update(agent.now, &all).ops, vec![]);
        prop_assert_eq!(agent.planner.sync(agent.now, &all).ops, vec![]);
    }
}
