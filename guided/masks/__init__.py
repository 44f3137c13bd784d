"""From an automaton to token masks: the vocabulary's trie, the compiled walk, what is remembered."""
