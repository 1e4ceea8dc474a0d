# Runs cells of Perl. `channel.py`, `limiting.py`, `commands.py` and `leading.py` stand in front.
#
# One perl lives on; cells share the package `main`. What a cell declares by `my` at the beginning of a
# line is declared by `our` instead, so that it stays.

LOOP = r"""
use JSON::PP ();
use Digest::SHA ();
package Cells;
# Here, where a cell sees no variable of ours.
sub evaluate { package main; no strict; no warnings; eval $_[0] }
package LLMError { use overload '""' => sub { $_[0]{message} }, fallback => 1; }
package Cells;
my ($orders, $reports) = map { my $h; open $h, "+<&=$_" or die $!; binmode $h; $h } @ARGV;
select((select($reports), $| = 1)[0]); $| = 1;
binmode $_, ':utf8' for *STDOUT, *STDERR;
my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my ($CHARS_MAX, $ANSWER_CHARS_MAX) = (32 * 1024, 384 * 1024);
sub report { print {$reports} $json->encode($_[0]) . "\n" }
sub order { my $line = readline($orders); exit 0 unless defined $line; $json->decode($line) }
sub cut {
  my ($text, $max) = @_;
  return $text if length $text <= $max;
  substr($text, 0, $max / 2) . "\n[... " . (length($text) - $max) . " characters cut ...]\n" . substr($text, -$max / 2);
}
report({version => sprintf '%vd', $^V});
my $opening = order();
srand $opening->{seed};
my %inputs = %{$opening->{inputs}};
sub slurp { open my $h, '<:utf8', $_[0] or die "$_[0]: $!"; local $/; <$h> }
my $asked = 0;
sub ask {
  my @calls = @_ or return;
  my $id = ++$asked;
  report({id => $id, calls => \@calls});
  while (1) {
    my $heard = order();
    next unless defined $heard->{id} && $heard->{id} == $id;
    die "interrupted\n" unless defined $heard->{results};
    return map { defined $_->{text} ? $_->{text} : bless {message => $_->{error} // 'no answer'}, 'LLMError' }
      @{$heard->{results}};
  }
}
sub one {
  my ($kind, $prompt, $model) = @_;
  my ($result) = ask({kind => $kind, prompt => "$prompt", model => $model});
  die $result if ref $result eq 'LLMError';
  $result;
}
sub as_text { my $value = shift; !defined $value ? '' : ref $value && ref $value ne 'LLMError' ? JSON::PP->new->canonical->allow_nonref->allow_blessed->encode($value) : "$value" }
my $context;
$main::answer = {content => '', ready => JSON::PP::false};
*main::llm_query = sub { one('llm', @_) };
*main::rlm_query = sub { one('rlm', @_) };
*main::unfold = sub {
  my ($handle) = @_;
  my $text = '';
  while (1) {
    my $piece = one('unfold', length $text ? "$handle:" . length $text : $handle);
    $text .= $piece;
    return $text if length $piece < 16 * 1024;
  }
};
*main::find_folds = sub {
  my ($question, $count) = @_;
  my @found = @{$json->decode(Encode::encode('UTF-8', one('find', $question)))};
  return splice @found, 0, $count // 3;
};
*main::budget = sub { $json->decode(Encode::encode('UTF-8', one('budget', ''))) };
*main::history = sub { @{$json->decode(Encode::encode('UTF-8', one('history', '')))} };
sub many { my ($kind, $prompts, $model) = @_; ask(map { {kind => $kind, prompt => "$_", model => $model} } @$prompts) }
*main::llm_query_batched = sub { many('llm', @_) };
*main::rlm_query_batched = sub { many('rlm', @_) };
*main::context = sub {
  return '' unless %inputs;
  $context //= keys %inputs == 1 ? slurp(values %inputs) : {map { $_ => slurp($inputs{$_}) } keys %inputs};
};
*main::FINAL = sub { $main::answer = {content => as_text($_[0]), ready => JSON::PP::true} };
my %own = map { $_ => 1 } keys %main::;
$own{answer} = 1;
sub names {
  map { my $name = $_;
    ((defined ${"main::$name"} ? "\$$name" : ()), (@{"main::$name"} ? "\@$name" : ()), (%{"main::$name"} ? "%$name" : ())) }
  sort grep { /^[A-Za-z]\w*$/ && !$own{$_} && ref \$main::{$_} eq 'GLOB' } keys %main::;
}
sub value_of {
  my ($sigil, $name) = $_[0] =~ /^(.)(.*)/;
  $sigil eq '$' ? ${"main::$name"} : $sigil eq '@' ? \@{"main::$name"} : \%{"main::$name"};
}
*main::SHOW_VARS = sub { join("\n", names()) || 'no variables yet' };
*main::FINAL_VAR = sub {
  my $name = $_[0] =~ /^\W/ ? $_[0] : "\$$_[0]";
  my @known = (names(), '$answer');
  die "there is no variable $name; there are: @known\n" unless grep { $_ eq $name } @known;
  main::FINAL(value_of($name));
};
sub run {
  my $cell = shift;
  my $done = {status => 'ok', exit_code => 0};
  @ARGV = @{$cell->{arguments} // []};
  $0 = $cell->{name} if $cell->{name};
  my $code = slurp($cell->{path});
  $code =~ s/^my(?=\s*[\$\@%(])/our/mg;
  local $SIG{INT} = sub { die "interrupted\n" };
  my $left = evaluate("\n#line 1 \"<cell $cell->{cell}>\"\n$code\n;1") ? '' : $@;
  if (ref $left eq 'Cells::Exit') {
    $done->{exit_code} = $left->{code} & 255;
    $done->{status} = 'error' if $done->{exit_code};
    $done->{error} = "the cell ended with exit $left->{code}; the session goes on";
  } elsif ("$left" eq "interrupted\n") {
    @$done{qw(status exit_code error)} = ('interrupted', 130, 'interrupted');
  } elsif ("$left" ne '') {
    my $words = ref $left eq 'LLMError' ? "LLMError: $left" : "$left";
    chomp $words;
    @$done{qw(status exit_code error)} = ('error', 1, cut($words, $CHARS_MAX));
  }
  my $answer = ref $main::answer eq 'HASH' ? $main::answer : {content => $main::answer};
  $done->{answer_content} = cut(as_text($answer->{content}), $ANSWER_CHARS_MAX);
  $done->{answer_is_ready} = $answer->{ready} ? JSON::PP::true : JSON::PP::false;
  my $sha = Digest::SHA->new(256);
  $sha->add(Encode::encode('UTF-8', "$_\0" . substr(as_text(eval { value_of($_) }), 0, 32768) . "\0")) for names(), '$answer';
  $done->{digest} = $sha->hexdigest;
  $done;
}
BEGIN { *CORE::GLOBAL::exit = sub (;$) { die bless {code => $_[0] // 0}, 'Cells::Exit' }; require Encode; }
$SIG{INT} = sub {};
while (1) {
  my $heard = order();
  report(run($heard)) if defined $heard->{cell};
}
"""


class Perl(Interpreter):
    def argv(self):
        return ["perl", "-e", LOOP]


lead(Perl)
