"""What a run and a plan say to people and to other tools."""
