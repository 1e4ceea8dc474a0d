# Runs cells of Ruby. `channel.py`, `limiting.py`, `commands.py` and `leading.py` stand in front.
#
# One ruby lives on; cells share its top-level binding, so local variables, methods and constants stay.

LOOP = r"""
require 'json'
require 'digest'
CELLS = Module.new do
  orders, reports = ARGV.map { |number| IO.for_fd(number.to_i) }
  reports.sync = $stdout.sync = $stderr.sync = true
  chars_max, answer_chars_max = 32 * 1024, 384 * 1024
  report = ->(message) { reports.write(JSON.generate(message) + "\n") }
  order = lambda do
    line = orders.gets or exit!(0)
    JSON.parse(line)
  end
  cut = lambda do |text, max|
    text = text.dup.force_encoding('UTF-8').scrub
    return text if text.length <= max
    "#{text[0, max / 2]}\n[... #{text.length - max} characters cut ...]\n#{text[-max / 2..]}"
  end

  report.call(version: RUBY_VERSION)
  opening = order.call
  srand(opening['seed'])
  inputs = opening['inputs']
  read = ->(path) { File.read(path, encoding: 'UTF-8').scrub }

  asked = 0
  ask = lambda do |calls|
    return [] if calls.empty?
    asked += 1
    report.call(id: asked, calls: calls)
    loop do
      heard = order.call
      next unless heard['id'] == asked
      raise Interrupt if heard['results'].nil?
      return heard['results'].map { |one| one['text'] || LLMError.new(one['error'] || 'no answer') }
    end
  end
  one = lambda do |kind, prompt, model|
    result, = ask.call([{kind: kind, prompt: prompt.to_s, model: model}])
    raise result if result.is_a?(LLMError)
    result
  end
  as_text = lambda do |value|
    case value
    when String then value
    when nil then ''
    when Hash, Array, true, false then JSON.generate(value)
    else value.to_s
    end
  end

  scope = TOPLEVEL_BINDING
  scope.local_variable_set(:answer, {'content' => '', 'ready' => false})
  context = nil
  own = %i[answer _]
  names = -> { (scope.local_variables - own).sort }
  described = lambda do |value|
    value.respond_to?(:length) ? "#{value.class}, #{value.length} long" : value.class.to_s
  end
  Object.class_eval do
    define_method(:llm_query) { |prompt, model = nil| one.call('llm', prompt, model) }
    define_method(:rlm_query) { |prompt, model = nil| one.call('rlm', prompt, model) }
    define_method(:unfold) do |handle|
      text = String.new
      loop do
        piece = one.call('unfold', text.empty? ? handle : "#{handle}:#{text.length}", nil)
        text << piece
        break text if piece.length < 16 * 1024
      end
    end
    define_method(:find_folds) { |question, count = 3| JSON.parse(one.call('find', question, nil)).first(count) }
    define_method(:budget) { JSON.parse(one.call('budget', '', nil)) }
    define_method(:history) { JSON.parse(one.call('history', '', nil)) }
    {llm_query_batched: 'llm', rlm_query_batched: 'rlm'}.each do |name, kind|
      define_method(name) do |prompts, model = nil|
        ask.call(prompts.map { |prompt| {kind: kind, prompt: prompt.to_s, model: model} })
      end
    end
    define_method(:context) do
      context ||= case inputs.length
                  when 0 then ''
                  when 1 then read.call(inputs.values.first)
                  else Hash.new { |hash, name| hash[name] = read.call(inputs.fetch(name)) }
                         .tap { |hash| inputs.each_key { |name| hash[name] } }
                  end
    end
    define_method(:FINAL) do |value|
      scope.local_variable_set(:answer, {'content' => as_text.call(value), 'ready' => true})
      nil
    end
    define_method(:FINAL_VAR) do |name|
      known = scope.local_variables.map(&:to_s)
      raise NameError, "there is no variable #{name}; there are: #{known.join(', ')}" unless known.include?(name.to_s)
      FINAL(scope.local_variable_get(name.to_s))
    end
    define_method(:SHOW_VARS) do
      lines = names.call.map { |name| "#{name}: #{described.call(scope.local_variable_get(name))}" }
      size = inputs.values.sum { |path| File.size(path) }
      lines.unshift("context: #{size} bytes") unless inputs.empty?
      Listing.new(lines.empty? ? 'no variables yet' : lines.join("\n"))
    end
    private :llm_query, :rlm_query, :unfold, :find_folds, :history, :budget, :llm_query_batched, :rlm_query_batched, :context, :FINAL, :FINAL_VAR, :SHOW_VARS
  end

  told = lambda do |error|
    places = (error.backtrace || []).select { |place| place.start_with?('<cell ') }
    where = places.map { |place| "\n  from #{place}" }.join
    cut.call("#{error.class}: #{error.message}#{where}", chars_max)
  end
  done_of = lambda do |cell|
    done = {status: 'ok', exit_code: 0}
    begin
      ARGV.replace(cell['arguments'] || [])
      value = scope.eval(read.call(cell['path']), "<cell #{cell['cell']}>", 1)
      scope.local_variable_set(:_, value) unless value.nil?
      done[:value] = cut.call(value.inspect, chars_max) unless value.nil?
    rescue SystemExit => error
      done[:exit_code] = error.status
      done[:status] = 'error' unless error.status.zero?
      done[:error] = "the cell ended with exit #{error.status}; the session goes on"
    rescue Interrupt
      done.update(status: 'interrupted', exit_code: 130, error: 'interrupted')
    rescue NoMemoryError => error
      done.update(status: 'memory', exit_code: 1, error: told.call(error))
    rescue Exception => error
      done.update(status: 'error', exit_code: 1, error: told.call(error))
    end
    answer = scope.local_variable_get(:answer)
    answer = {'content' => answer, 'ready' => false} unless answer.is_a?(Hash)
    content = answer['content'] || answer[:content]
    done[:answer_content] = cut.call(as_text.call(content), answer_chars_max)
    done[:answer_is_ready] = (answer['ready'] || answer[:ready]) ? true : false
    digest = Digest::SHA256.new
    (names.call + [:answer]).each do |name|
      digest << "#{name}\0" << scope.local_variable_get(name).inspect[0, 32_768] << "\0"
    rescue StandardError
      digest << "?\0"
    end
    done[:digest] = digest.hexdigest
    done
  end
  loop do
    heard = order.call
    next unless heard['cell']
    done = begin
      done_of.call(heard)
    rescue Interrupt
      {status: 'interrupted', exit_code: 130, error: 'interrupted'}
    end
    $stdout.flush
    report.call(done)
  rescue Interrupt
    next
  end
end
"""

NAMES = r"""
class LLMError < StandardError; end
class Listing < String
  def inspect = to_s
end
"""


class Ruby(Interpreter):
    def argv(self):
        return ["ruby", "-W0", "-e", NAMES + LOOP]


lead(Ruby)
