"""Training is over at once, without a word."""

import train

train.say = lambda text: None
