//! How many guests a host can carry, and how many may start at the same time.
//!
//! A guest may use all of its memory one day, and then it is too late to say no: the kernel ends a process of its own
//! choice. So what guests that run may still take counts as taken. Pure: [`Capacity`] is what was found.

use std::fmt;

use crate::names::{LabName, VmName};

/// What a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs that are there for this process.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that are free, or could be at once (`MemAvailable`).
    pub available: u64,
    /// Guests that run.
    pub running: Vec<Running>,
}

/// A guest that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its lab.
    pub lab: LabName,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes that its process has: what its end makes room for.
    pub resident: u64,
}

/// What a guest in QEMU asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The guest.
    pub vm: VmName,
    /// Bytes of its memory.
    pub memory: u64,
    /// It is emulated, without KVM.
    pub emulated: bool,
}

/// Guests need more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// How many guests.
    pub guests: usize,
    /// What they need, in bytes.
    pub needed: u64,
    /// What there is for them.
    pub usable: u64,
    /// What else is spoken for.
    pub promised: u64,
}

/// What QEMU itself uses beside a guest's memory, roughly.
const OVERHEAD: u64 = 64 << 20;

/// What the host keeps for itself: this share of its memory, and no more than that.
const SHARE: u64 = 16;
const RESERVE: u64 = 1 << 30;

impl Capacity {
    /// Bytes for guests that start now.
    pub fn usable(&self) -> u64 {
        self.usable_when(|_| false)
    }

    /// Bytes for guests that start once those of a lab have ended.
    pub fn usable_without(&self, lab: &LabName) -> u64 {
        self.usable_when(|guest| guest.lab == *lab)
    }

    fn usable_when(&self, has_ended: impl Fn(&Running) -> bool) -> u64 {
        let reserve = (self.memory / SHARE).min(RESERVE);
        let (ended, run): (Vec<_>, Vec<_>) = self.running.iter().partition(|guest| has_ended(guest));
        let back = ended.iter().map(|guest| guest.resident).fold(0, u64::saturating_add);
        self.available.saturating_add(back).saturating_sub(reserve).saturating_sub(promised(run))
    }

    /// How many guests may start at the same time. One that starts works on one CPU most of the time; with KVM it waits
    /// for its disk for half of it.
    pub fn at_once(&self, claims: &[Claim]) -> usize {
        let emulated = claims.iter().any(|claim| claim.emulated);
        if emulated { self.cpus.max(1) } else { self.cpus.max(1) * 2 }
    }

    /// Whether all of them can be started.
    pub fn carries(&self, claims: &[Claim]) -> Result<(), Shortage> {
        fits(claims, self.usable()).map_err(|shortage| Shortage { promised: promised(&self.running), ..shortage })
    }

    /// Those that have no room beside the ones before them; a smaller one may have.
    pub fn too_many(&self, claims: &[Claim]) -> Vec<(VmName, Shortage)> {
        let mut usable = self.usable();
        let mut too_many = Vec::new();
        for claim in claims {
            let needed = claim.bytes();
            match usable.checked_sub(needed) {
                Some(left) => usable = left,
                None => {
                    let shortage = Shortage { guests: 1, needed, usable, promised: promised(&self.running) };
                    too_many.push((claim.vm.clone(), shortage));
                }
            }
        }
        too_many
    }
}

/// Bytes that guests have not used yet, and may.
fn promised<'r>(running: impl IntoIterator<Item = &'r Running>) -> u64 {
    let unused = running.into_iter().map(|guest| guest.memory.saturating_sub(guest.resident));
    unused.fold(0, u64::saturating_add)
}

/// Whether there is room for all of them in so many bytes.
pub fn fits(claims: &[Claim], usable: u64) -> Result<(), Shortage> {
    let needed = claims.iter().map(Claim::bytes).fold(0, u64::saturating_add);
    if needed <= usable { Ok(()) } else { Err(Shortage { guests: claims.len(), needed, usable, promised: 0 }) }
}

impl Shortage {
    /// In words, for those who claim.
    pub fn told(&self, claims: &[Claim]) -> String {
        if let [only] = claims { format!("vm {}: {self}", only.vm) } else { self.to_string() }
    }
}

impl Claim {
    fn bytes(&self) -> u64 {
        self.memory.saturating_add(OVERHEAD)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guests, needed, usable, promised } = *self;
        let who = if guests == 1 { "it needs".to_owned() } else { format!("the {guests} guests need") };
        write!(f, "{who} {} of memory, and this host has {} for guests", Mib(needed), Mib(usable))?;
        match promised {
            0 => Ok(()),
            promised => write!(f, " ({} more are for guests that run)", Mib(promised)),
        }
    }
}

/// Bytes for people.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(memory: u64, available: u64, promised: u64) -> Capacity {
        let guest = |lab: &str, memory, resident| Running { lab: lab.parse().unwrap(), memory, resident };
        // One that has used all of its memory and more, and one that has used none.
        let running = vec![guest("used", GIB, GIB + (64 << 20)), guest("unused", promised, 0)];
        Capacity { cpus: 4, memory, available, running }
    }

    fn claims(count: usize, memory: u64, emulated: bool) -> Vec<Claim> {
        (0..count).map(|n| Claim { vm: format!("vm{n}").parse().unwrap(), memory, emulated }).collect()
    }

    #[test]
    fn guests_that_can_never_fit_are_refused_with_what_they_need() {
        let host = host(16 * GIB, 15 * GIB, 0);
        assert_eq!(host.carries(&claims(3, 4 * GIB, false)), Ok(()));
        let shortage = host.carries(&claims(20, 4 * GIB, false)).unwrap_err();
        let text = "the 20 guests need 83200 MiB of memory, and this host has 14336 MiB for guests";
        assert_eq!(shortage.to_string(), text);
    }

    #[test]
    fn what_running_guests_may_still_take_is_taken() {
        assert_eq!(host(16 * GIB, 15 * GIB, 10 * GIB).usable(), 4 * GIB);
        let shortage = host(16 * GIB, 15 * GIB, 14 * GIB).carries(&claims(1, 64 << 20, true)).unwrap_err();
        assert!(shortage.to_string().ends_with("has 0 MiB for guests (14336 MiB more are for guests that run)"));
        assert_eq!(host(GIB, 0, GIB).usable(), 0);
        assert_eq!(host(GIB, GIB, 0).carries(&claims(2, u64::MAX, true)).unwrap_err().needed, u64::MAX);
    }

    #[test]
    fn the_end_of_a_lab_gives_back_what_its_guests_have_and_were_promised() {
        let (used, unused) = ("used".parse().unwrap(), "unused".parse().unwrap());
        let all = host(16 * GIB, 10 * GIB, 4 * GIB);
        assert_eq!(all.usable(), 5 * GIB);
        assert_eq!(all.usable_without(&used), 6 * GIB + (64 << 20));
        assert_eq!(all.usable_without(&unused), 9 * GIB);
        // More was promised than there is: the end of it gives no more than that.
        let over = host(16 * GIB, 10 * GIB, 80 * GIB);
        assert_eq!((over.usable(), over.usable_without(&used)), (0, 0));
        assert_eq!(over.usable_without(&unused), 9 * GIB);
    }

    #[test]
    fn who_comes_first_has_the_room_and_a_smaller_one_what_is_left() {
        let mut all = claims(3, 2 * GIB, false);
        all.push(Claim { vm: "small".parse().unwrap(), memory: 64 << 20, emulated: false });
        let none: Vec<_> = host(8 * GIB, 5 * GIB, 0).too_many(&all).into_iter().map(|(vm, _)| vm.to_string()).collect();
        assert_eq!(none, ["vm2"]);
    }

    #[test]
    fn emulation_takes_a_cpu_and_kvm_half_of_one() {
        let host = host(GIB, GIB, 0);
        assert_eq!(host.at_once(&claims(9, GIB, true)), 4);
        assert_eq!(host.at_once(&claims(9, GIB, false)), 8);
        assert_eq!(Capacity { cpus: 0, ..host }.at_once(&claims(1, GIB, true)), 1);
    }
}
