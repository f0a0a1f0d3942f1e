"""From the items of a source to a record set: plan, shards, workspace, report."""
