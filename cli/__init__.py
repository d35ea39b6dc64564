"""The command line: reads arguments, composes the other packages, prints. Nothing imports it but `opcd_agents.__main__`."""
