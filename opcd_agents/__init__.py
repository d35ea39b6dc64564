"""Play, record and distil: the nouns, the policies and the learner. Imports nothing heavy by itself."""
