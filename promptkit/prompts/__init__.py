"""Join instruction, demonstrations and query into a prompt; a prompt and its answer into a training pair."""
