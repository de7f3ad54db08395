//! Who gets it: recipients become targets. Asked of the directory and committed once; whoever delivers the item again
//! finds what was decided then, whatever the directory says now.

use std::collections::HashMap;

use directory::route::FailureReason;
use directory::{Directory, Route, Temporary};
use mail::address::Address;
use mail::envelope::Recipient;
use queue::Queue;
use queue::item::{Destination, Failure, Target};

/// Some more of an expansion.
#[derive(Debug, Default)]
pub(crate) struct More {
    /// Recipients before this index are expanded with it.
    pub(crate) expanded: u32,
    /// Reverse-paths of lists that the item did not know yet.
    pub(crate) owners: Vec<Address>,
    /// The targets.
    pub(crate) targets: Vec<Target>,
}

/// Expands recipients from index `from` on, until there are `enough` targets. `known` owners and `first` target numbers
/// are those of the item so far.
pub(crate) async fn more(
    directory: &Directory,
    queue: &Queue,
    recipients: &[Recipient],
    from: u32,
    known_owners: &[Address],
    first: u32,
    enough: usize,
) -> Result<More, Temporary> {
    let mut more = More { expanded: from, ..More::default() };
    let mut seen: HashMap<(Destination, Option<u16>), u32> = HashMap::new();
    for (index, recipient) in (0..).zip(recipients).skip(from as usize) {
        if more.targets.len() >= enough {
            break;
        }
        let expansion = directory.expand(&recipient.address).await?;
        let found = expansion.targets.len() + expansion.failures.len();
        for target in expansion.targets {
            let to = match target.route {
                Route::Local(route) => Destination::Local { account: route.account, detail: route.detail },
                Route::Remote(address) => queue.remote(address),
            };
            let owner = target.owner.and_then(|owner| owner_index(known_owners, &mut more.owners, owner));
            // The message goes to each place once; what leads there again is recorded as the same.
            let number = first + more.targets.len() as u32;
            let to = match seen.entry((to, owner)) {
                std::collections::hash_map::Entry::Occupied(before) => {
                    Destination::Same { target: *before.get() }
                }
                std::collections::hash_map::Entry::Vacant(new) => {
                    let to = new.key().0.clone();
                    new.insert(number);
                    to
                }
            };
            more.targets.push(Target { recipient: index, owner, to });
        }
        for failure in expansion.failures {
            let owner = failure.owner.and_then(|owner| owner_index(known_owners, &mut more.owners, owner));
            let address = (failure.address != recipient.address).then_some(failure.address);
            let to = Destination::Unreachable { address, failure: failure_of(failure.reason) };
            more.targets.push(Target { recipient: index, owner, to });
        }
        if found == 0 {
            // An alias or list without targets: nobody gets it, which the sender has to be told.
            let failure = Failure::new("5.1.1", "the address leads to nobody");
            let to = Destination::Unreachable { address: None, failure };
            more.targets.push(Target { recipient: index, owner: None, to });
        }
        more.expanded = index + 1;
    }
    Ok(more)
}

fn owner_index(known: &[Address], new: &mut Vec<Address>, owner: Address) -> Option<u16> {
    let all = known.iter().chain(new.iter());
    let at = match all.into_iter().position(|before| *before == owner) {
        Some(at) => at,
        None => {
            new.push(owner);
            known.len() + new.len() - 1
        }
    };
    // More lists than that are beyond what one message's recipients can name; the sender hears of failures then.
    u16::try_from(at).ok()
}

fn failure_of(reason: FailureReason) -> Failure {
    let status = match reason {
        FailureReason::NoSuchUser => "5.1.1",
        FailureReason::Disabled => "5.2.1",
        FailureReason::Loop => "5.4.6",
        FailureReason::TooMany => "5.5.3",
    };
    Failure::new(status, reason.to_string())
}
