//! `vmnet image` as clap sees it.

use clap::Subcommand;

use super::Lab;
use crate::names::ImageName;

/// What is done with images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Download the images of a lab's guests that have a url; `boot` does it too, of those that it starts.
    Pull {
        /// The lab.
        #[command(flatten)]
        lab: Lab,
        /// Only these images.
        #[arg(value_name = "IMAGE")]
        names: Vec<ImageName>,
    },
    /// List the images of this host: those that its labs use, and what was downloaded or sent.
    #[command(visible_alias = "ls")]
    List,
    /// Remove what was downloaded or sent and no lab of this host and no guest's disk needs.
    Prune {
        /// Only show what would go.
        #[arg(long)]
        dry_run: bool,
    },
}
