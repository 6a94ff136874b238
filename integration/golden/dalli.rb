# Stores the keys of standard input, a line each, in the servers given, with Dalli.
require "dalli"

client = Dalli::Client.new(ARGV)
$stdin.each_line(chomp: true) do |key|
  abort "cannot store #{key}" unless client.set(key, "x")
end
